"""What is read of a row that is scored."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from magpie_ray.config.scoring import RowText

# The texts of a row by name, without those that it lacks.
Texts: TypeAlias = Mapping[RowText, str]

_SPEAKERS = {"user": "User", "assistant": "Assistant"}


class RowToScore(Protocol):
    """A row of a source.

    messages: (role, text) from the first on, of the roles user and assistant in turn. responses: several
    answers to the last message, None in the place of one that the row lacks; or (). kept: see ScoredRow.
    """

    @property
    def row_id(self) -> int: ...

    @property
    def messages(self) -> Sequence[tuple[str, str]]: ...

    @property
    def system_prompt(self) -> str | None: ...

    @property
    def responses(self) -> Sequence[str | None]: ...

    @property
    def kept(self) -> Any: ...


def texts_of(row: RowToScore) -> Texts:
    """The first instruction, the last answer, and all messages. A blank text is missing."""
    spoken = [(role, text.strip()) for role, text in row.messages if role in _SPEAKERS]
    texts: dict[RowText, str] = {
        "instruction": next((text for role, text in spoken if role == "user"), ""),
        "response": next((text for role, text in reversed(spoken) if role == "assistant"), ""),
        "conversation": "\n\n".join(f"{_SPEAKERS[role]}: {text}" for role, text in spoken),
    }
    return {name: text for name, text in texts.items() if text}
