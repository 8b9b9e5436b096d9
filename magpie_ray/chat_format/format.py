"""A derived chat format, and the prompts that it makes.

Owns: how messages become a prompt. Invariants: a format is plain data that survives pickling and JSON; a
prompt needs no tokenizer; a request that the format can't serve raises FormatError.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from magpie_ray.errors import FormatError


class Answer(NamedTuple):
    """A generated answer in two parts. `reasoning` is "" where the model wrote none."""

    reasoning: str
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reasoning:
    """The markers of answers with reasoning, without surrounding white space.

    opened: the generation prompt opens the reasoning, so the model writes no `opening`.
    answer_opening, answer_closing: markers around the content itself; "" for none.
    kept: the template writes the reasoning of earlier answers too, so they stay as they were generated.
    """

    opened: bool
    opening: str
    closing: str
    answer_opening: str = ""
    answer_closing: str = ""
    kept: bool = False

    def split(self, text: str) -> Answer | None:
        """The parts of a decoded answer whose special tokens were kept. None: the reasoning never closes."""
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
    """The prefix with one system prompt.

    Some templates move the system text to the last user message. For these, `last_user` stands before that
    message in place of `next_user`, and the two `earlier_` fields are the ids of the pre-query and of
    `next_user` before user messages that the system text has left. Other templates have "" and ().
    """

    system_prompt: str
    text: str
    ids: tuple[int, ...]
    last_user: str = ""
    last_user_ids: tuple[int, ...] = ()
    earlier_pre_query_ids: tuple[int, ...] = ()
    earlier_next_user_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """Everything that stands around the messages of a dialogue. Texts are exactly the template's.

    pre_query: before the first user message. user_to_assistant: behind the last user message, asks for an
    answer. history_user_to_assistant: the same place once the answer is history. next_user: between an answer
    and the next user message.

    Ids omit white space that the tokenizer joins with the first word of the next message ("[INST] " + "Why"
    is "[INST]" "▁Why"). The model writes that white space, so decoded messages need stripping. A token that
    the tokenizer itself puts in front is in the ids and not in the text.
    """

    pre_query: str
    pre_query_ids: tuple[int, ...]
    user_to_assistant: str = ""
    user_to_assistant_ids: tuple[int, ...] = ()
    history_user_to_assistant: str = ""
    history_user_to_assistant_ids: tuple[int, ...] = ()
    next_user: str = ""
    next_user_ids: tuple[int, ...] = ()
    user_stop_token_ids: tuple[int, ...]
    assistant_stop_token_ids: tuple[int, ...]
    stop_strings: tuple[str, ...] = ()
    system_role: SystemRole
    system_prefixes: tuple[SystemPrefix, ...] = ()
    date: str | None = None  # ISO; None where the text depends on no date
    role_markers: tuple[str, ...] = ()  # a decoded message that contains one has leaked a marker
    special_token_ids: tuple[int, ...] = ()  # no message contains one
    trimmed_roles: tuple[str, ...] = ()  # roles whose messages lose their trailing white space
    blank_ids: tuple[int, ...] = ()  # the tokens of that white space
    can_answer: bool = True  # False: only the pre-query is known
    can_think: bool = False  # the template has a place for reasoning: derive with thinking=True
    reasoning: Reasoning | None = None  # how answers are split; None: an answer is all content
    multi_turn_problem: str | None = None  # why later turns can't be generated
    warnings: tuple[str, ...] = ()

    @property
    def takes_system(self) -> bool:
        return self.system_role != "rejected"

    def require(self, *, turns: int, answers: bool) -> None:
        """Raises FormatError when the format can't generate that many turns, or no answers."""
        if answers and not self.can_answer:
            raise FormatError(
                "The tokenizer has no usable chat template, so nothing says how to ask for an answer: "
                "set only_instruction: true, or use an instruct/chat model."
            )
        if turns > 1 and self.multi_turn_problem:
            raise FormatError(
                f"n_turns: {turns} is more than this chat template does: {self.multi_turn_problem}."
            )

    def start(self, system_prompt: str | None) -> SystemPrefix:
        """Everything before the first user message. None and "" mean no system prompt.

        Raises FormatError for a system prompt that `derive` was not given.
        """
        if not system_prompt:
            return SystemPrefix(system_prompt="", text=self.pre_query, ids=self.pre_query_ids)
        known = self._by_system_prompt.get(system_prompt)
        if known is None:
            raise FormatError(f"The chat format was not derived with the system prompt {system_prompt!r}.")
        return known

    def prefix(self, system_prompt: str | None) -> tuple[int, ...]:
        """The ids of `start`."""
        return self.start(system_prompt).ids

    def prefix_text(self, system_prompt: str | None) -> str:
        """The text of `start`."""
        return self.start(system_prompt).text

    def prompt(self, prefix: SystemPrefix | Sequence[int], messages: Sequence[Sequence[int]]) -> list[int]:
        """Ids of the prompt for the next message of a dialogue.

        prefix: the result of `start` or `prefix` for this dialogue. messages: user, assistant, user ...,
        each without the token that ended it. The user writes next after an even count, the assistant after
        an odd one. Raises FormatError where `require` does.
        """
        self.require(turns=len(messages) // 2 + 1, answers=bool(messages))
        last_user = len(messages) // 2 * 2  # index of the last user message, or of the one that comes next
        if isinstance(prefix, SystemPrefix):
            first, moved = prefix.ids, prefix if prefix.last_user else None
        else:
            first = tuple(prefix)
            moved = self._moving.get(first) if self._moving else None
        next_user = before_last = self.next_user_ids
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
        """The format as plain JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    # Rows look their prompts up, and there may be thousands.
    @cached_property
    def _by_system_prompt(self) -> Mapping[str, SystemPrefix]:
        return {prefix.system_prompt: prefix for prefix in reversed(self.system_prefixes)}

    @cached_property
    def _moving(self) -> Mapping[tuple[int, ...], SystemPrefix]:
        """By their ids, those that the template moves to the last user message."""
        return {prefix.ids: prefix for prefix in reversed(self.system_prefixes) if prefix.last_user}

    def _trimmed(self, message: Sequence[int]) -> Sequence[int]:
        end = len(message)
        while end and message[end - 1] in self.blank_ids:
            end -= 1
        return message[:end]
