"""A derived chat format, and the prompts it makes.

Owns: how messages are put together to a prompt. What always holds: a format is plain data that survives
pickling and JSON; making a prompt needs no tokenizer; what the format can't do is refused, not approximated.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, Self

from magpie_ray.errors import FormatError


class Answer(NamedTuple):
    """A generated answer in its two parts; `reasoning` is "" where the model gave none."""

    reasoning: str
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reasoning:
    """The markup of answers with reasoning, without surrounding white space.

    opened: what asks for an answer opens the reasoning, so the model writes no `opening`. answer_opening and
    answer_closing: what some formats write around the content itself, "" for nothing. kept: the template
    writes the reasoning of earlier answers as well, so they stay as they were generated.
    """

    opened: bool
    opening: str
    closing: str
    answer_opening: str = ""
    answer_closing: str = ""
    kept: bool = False

    def split(self, text: str) -> Answer | None:
        """A decoded answer, special tokens kept, in its parts. None: its reasoning never closes."""
        before, closed, content = text.partition(self.closing)
        if closed:
            reasoning = before.strip().removeprefix(self.opening).strip()
        elif self.opened or text.lstrip().startswith(self.opening):
            return None
        else:
            reasoning, content = "", text
        content = content.strip().removeprefix(self.answer_opening)
        if self.answer_closing:
            content = content.partition(self.answer_closing)[0]
        return Answer(reasoning, content.strip())


SystemRole = Literal["supported", "folded_into_user", "rejected"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemPrefix:
    """What one system prompt makes of the prefix.

    `last_user` is "" unless the template moves the system text to the last user message: then it is what
    stands before that message instead of `next_user`, and the two `earlier` are the ids that the pre-query
    and `next_user` have before messages that were written behind the system text and have lost it.
    """

    system_prompt: str
    text: str
    ids: tuple[int, ...]
    last_user: str = ""
    last_user_ids: tuple[int, ...] = ()
    earlier_pre_query_ids: tuple[int, ...] = ()
    earlier_next_user_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatFormat:
    """Everything that stands around messages in a dialogue. Texts are the template's, to the letter.

    Ids stop short of white space that the tokenizer joins with the first word of the message that follows
    ("[INST] " + "Why" is "[INST]" "▁Why"): the model writes it, so decoded messages are to be stripped. A
    token that the tokenizer puts in front by itself is in the ids and not in the text.
    """

    pre_query: str
    pre_query_ids: tuple[int, ...]
    user_to_assistant: str
    user_to_assistant_ids: tuple[int, ...]
    history_user_to_assistant: str
    history_user_to_assistant_ids: tuple[int, ...]
    next_user: str
    next_user_ids: tuple[int, ...]
    user_stop_token_ids: tuple[int, ...]
    assistant_stop_token_ids: tuple[int, ...]
    stop_strings: tuple[str, ...] = ()
    system_role: SystemRole
    system_prefixes: tuple[SystemPrefix, ...] = ()
    date: str | None = None  # ISO; None when the text depends on no date
    role_markers: tuple[str, ...] = ()  # their presence in a decoded message means that a marker leaked
    special_token_ids: tuple[int, ...] = ()  # no message contains one
    trimmed_roles: tuple[str, ...] = ()  # roles whose messages end before their trailing white space
    blank_ids: tuple[int, ...] = ()  # the tokens that this concerns
    can_answer: bool = True  # False: only the pre-query is known
    can_think: bool = False  # answers may be thought about first: derive with thinking=True
    reasoning: Reasoning | None = (
        None  # how such answers are split; None: without thinking, answers are content
    )
    multi_turn_problem: str | None = None  # why later turns can't be written; None: they can
    warnings: tuple[str, ...] = ()

    @property
    def takes_system(self) -> bool:
        return self.system_role != "rejected"

    def require(self, *, turns: int, answers: bool) -> None:
        """Raises FormatError when the format can't do that many turns, or can't do answers."""
        if answers and not self.can_answer:
            raise FormatError(
                "The tokenizer has no usable chat template, so nothing says how an answer is asked for: "
                "set only_instruction: true, or use an instruct/chat model."
            )
        if turns > 1 and self.multi_turn_problem:
            raise FormatError(
                f"n_turns: {turns} is more than this chat template does: {self.multi_turn_problem}."
            )

    def prefix(self, system_prompt: str | None) -> tuple[int, ...]:
        """Ids of all that stands before the first user text. None and "" mean no system prompt.

        Raises FormatError for a system prompt that the format was not derived with.
        """
        return self._system_prefix(system_prompt).ids if system_prompt else self.pre_query_ids

    def prefix_text(self, system_prompt: str | None) -> str:
        """The text of `prefix`."""
        return self._system_prefix(system_prompt).text if system_prompt else self.pre_query

    def prompt(self, prefix: Sequence[int], messages: Sequence[Sequence[int]]) -> list[int]:
        """Ids of the prompt for the next message of a dialogue.

        `prefix` is what `prefix` gave for this dialogue. `messages` alternate user, assistant, user ..., each
        without the token that ended it. After an even count the user writes next, after an odd one the
        assistant. Raises FormatError where `require` does.
        """
        self.require(turns=len(messages) // 2 + 1, answers=bool(messages))
        last_user = len(messages) // 2 * 2  # index of the last user message, written or about to be
        first, next_user, before_last = tuple(prefix), self.next_user_ids, self.next_user_ids
        moved = next((s for s in self.system_prefixes if s.last_user and s.ids == first), None)
        if moved and last_user > 0:
            first, next_user = moved.earlier_pre_query_ids, moved.earlier_next_user_ids
            before_last = moved.last_user_ids
        ids = list(first)
        for index, message in enumerate(messages):
            role = "assistant" if index % 2 else "user"
            ids += self._trimmed(message) if role in self.trimmed_roles else message
            if role == "assistant":
                ids += before_last if index + 1 == last_user else next_user
            elif index + 1 == len(messages):
                ids += self.user_to_assistant_ids
            else:
                ids += self.history_user_to_assistant_ids
        return ids

    def to_dict(self) -> dict[str, Any]:
        """The format as JSON has it: lists, numbers, texts."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `to_dict` gave, as a format again. Raises FormatError when the fields are others."""
        known, given = {entry.name for entry in fields(cls)}, set(data)
        if known != given:
            raise FormatError(f"A recorded chat format has other fields than this version: {known ^ given}")
        values = _tuples(data)
        values["system_prefixes"] = tuple(SystemPrefix(**_tuples(entry)) for entry in data["system_prefixes"])
        values["reasoning"] = Reasoning(**data["reasoning"]) if data["reasoning"] else None
        return cls(**values)

    def _system_prefix(self, system_prompt: str) -> SystemPrefix:
        for known in self.system_prefixes:
            if known.system_prompt == system_prompt:
                return known
        raise FormatError(f"The chat format was not derived with the system prompt {system_prompt!r}.")

    def _trimmed(self, message: Sequence[int]) -> Sequence[int]:
        end = len(message)
        while end and message[end - 1] in self.blank_ids:
            end -= 1
        return message[:end]


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
