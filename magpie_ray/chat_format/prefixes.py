"""Prefixes of system prompts that are known only while a build runs, such as those of its inputs.

Invariants: a prefix is the one that `derive` makes for the prompt, and a prompt that `derive` refuses is
refused in the same words. What is left out is work that has the same result for all prompts: how the template
writes later turns, and which tokens end the prefix.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from types import MappingProxyType
from typing import Any

from magpie_ray.chat_format.derivation import open_format
from magpie_ray.chat_format.encoder import MESSAGE, OPENING, Encoder
from magpie_ray.chat_format.format import ChatFormat, SystemPrefix
from magpie_ray.chat_format.system_prompts import system_prefix
from magpie_ray.chat_format.template import Template
from magpie_ray.errors import FormatError

# A build with inputs derives its format with this prompt, which shows how the template writes any.
SPECIMEN = "You are a helpful assistant."
# Prompts with beginnings, ends and characters that a template or a tokenizer may treat otherwise.
_OTHERS = (
    'Answer in "JSON", e.g. {"a": [1, 2]} & <b>\\n</b>.\n\nTwo lines, 100% {{ x }} {% y %}',
    "Ты — 老师 9",
    "x",
)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A text with a place for the system prompt in it, and how its ids follow from those of the whole text.

    head: stands in front of the text. beyond: ids of what follows, once OPENING follows the text. ending: the
    last ids of the text, whatever the prompt.
    """

    before: str
    after: str
    head: str
    beyond: int
    ending: tuple[int, ...]

    def text(self, system_prompt: str) -> str:
        return self.before + system_prompt + self.after

    def ids(self, system_prompt: str, encoder: Encoder) -> tuple[int, ...] | None:
        """Ids of the text; None where they do not end or begin as they do for other prompts."""
        head = encoder.encode(self.head) if self.head else []
        whole = encoder.encode(self.head + self.text(system_prompt) + OPENING)
        ids = tuple(whole[len(head) : len(whole) - self.beyond])
        fits = whole[: len(head)] == head and ids[-len(self.ending) :] == self.ending
        return ids if fits else None


@dataclass(frozen=True, slots=True)
class _Pattern:
    """How the template writes any system prompt. moved: into the last user message; None where it stays."""

    prefix: _Piece
    moved: _Piece | None
    like: SystemPrefix


class PrefixMaker:
    """Makes the prefixes of one build's prompts. One thread at a time calls it.

    form: the format before system prompts and thinking. template: that it was read from.
    """

    def __init__(self, form: ChatFormat, template: Template, encoder: Encoder) -> None:
        self._form, self._template, self._encoder = form, template, encoder

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        form: ChatFormat,
        *,
        thinking: bool | None = None,
        template_variables: Mapping[str, Any] = MappingProxyType({}),
    ) -> "PrefixMaker":
        """For the form that `derive` made with these arguments. FormatError where it has no template."""
        encoder = Encoder(tokenizer)
        opened = open_format(
            tokenizer,
            encoder,
            system_prompts=[prefix.system_prompt for prefix in form.system_prefixes],
            date=datetime.date.fromisoformat(form.date) if form.date else None,
            thinking=thinking,
            ends=(),
            template_variables=template_variables,
        )
        return cls(opened.form, opened.template, encoder)

    def prefix(self, system_prompt: str) -> SystemPrefix:
        """The prefix of one prompt. FormatError when the template does not take the prompt."""
        pattern = self._pattern
        if pattern is None or self._leaks(system_prompt) or not self._writes(pattern, system_prompt):
            return self._derived(system_prompt)
        ids = pattern.prefix.ids(system_prompt, self._encoder)
        if ids is None:
            return self._derived(system_prompt)
        made = replace(
            pattern.like, system_prompt=system_prompt, text=pattern.prefix.text(system_prompt), ids=ids
        )
        if pattern.moved is None:
            return made
        moved_ids = pattern.moved.ids(system_prompt, self._encoder)
        if moved_ids is None:
            return self._derived(system_prompt)
        return replace(made, last_user=pattern.moved.text(system_prompt), last_user_ids=moved_ids)

    def check(self, prompts: Sequence[str]) -> None:
        """FormatError for the first of the prompts that the template does not take.

        Prompts are rendered together: what the template changes in one of them, it changes there, too.
        """
        pattern, whole = self._pattern, "\n".join(prompts)
        ordinary = pattern is not None and not self._leaks(whole)
        if ordinary and all(prompt == prompt.strip() for prompt in prompts) and self._writes(pattern, whole):
            return
        for prompt in prompts:
            self.prefix(prompt)

    @property
    def refuses_none(self) -> str:
        """Why a dialogue without a system prompt is refused; "" where it is not."""
        refused = "the chat template refuses a dialogue without a system message"
        return refused if self._template.demanded is not None else ""

    def _writes(self, pattern: "_Pattern | None", system_prompt: str) -> bool:
        """Whether the template writes the prompt as the pattern says."""
        if pattern is None or self._template.word in system_prompt:
            return False
        texts = self._template.try_around(system_prompt, 1)
        return texts == (pattern.prefix.text(system_prompt), self._form.user_to_assistant)

    def _leaks(self, text: str) -> bool:
        """Whether a special token stands in the text."""
        # Some models have hundreds, which begin with the same few characters.
        return any(
            first in text and any(marker in text for marker in markers)
            for first, markers in self._special.items()
        )

    @cached_property
    def _special(self) -> Mapping[str, Sequence[str]]:
        """The texts of special tokens, by their first character."""
        by_first: dict[str, list[str]] = {}
        for text in map(self._encoder.markers.get, self._encoder.special_ids):
            if text:
                by_first.setdefault(text[0], []).append(text)
        return by_first

    def _derived(self, system_prompt: str) -> SystemPrefix:
        """The prefix, made as for a prompt of the config."""
        if not self._form.takes_system:
            raise FormatError("The chat template takes no system prompt: it refuses one or leaves it out.")
        template = self._template
        while template.word in system_prompt:
            template = replace(template, word=f"{template.word}q")
        prefix, problem = system_prefix(self._form, system_prompt, template, self._encoder)
        if problem and self._problem is None:  # the problem's text names the prompt
            raise FormatError(f"With this chat template only one turn can be generated: {problem}.")
        return prefix

    @cached_property
    def _problem(self) -> str | None:
        """Why later turns can't be generated with any system prompt; None: they can."""
        _, problem = system_prefix(self._form, SPECIMEN, self._template, self._encoder)
        return problem

    @cached_property
    def _pattern(self) -> "_Pattern | None":
        """None where prompts are written each in its own way."""
        if not self._form.takes_system:
            return None
        prompts = (SPECIMEN, *_OTHERS)
        try:
            made = [system_prefix(self._form, prompt, self._template, self._encoder) for prompt in prompts]
        except FormatError:
            return None
        if any(problem for _, problem in made):
            return None
        prefixes = [prefix for prefix, _ in made]
        whole = self._piece("", prefixes, lambda prefix: (prefix.text, prefix.ids))
        if whole is None:
            return None
        if not any(prefix.last_user for prefix in prefixes):
            return _Pattern(whole, None, prefixes[0])
        earlier = {(prefix.earlier_pre_query_ids, prefix.earlier_next_user_ids) for prefix in prefixes}
        head = self._form.pre_query + MESSAGE + self._form.history_user_to_assistant + MESSAGE
        moved = self._piece(head, prefixes, lambda prefix: (prefix.last_user, prefix.last_user_ids))
        return _Pattern(whole, moved, prefixes[0]) if moved and len(earlier) == 1 else None

    def _piece(
        self,
        head: str,
        prefixes: Sequence[SystemPrefix],
        part: Callable[[SystemPrefix], tuple[str, tuple[int, ...]]],
    ) -> _Piece | None:
        """The part of prefixes as a piece, if it is the same for all of them."""
        text, ids = part(prefixes[0])
        before, found, after = text.partition(SPECIMEN)
        columns = zip(*(reversed(part(prefix)[1]) for prefix in prefixes), strict=False)
        ending = tuple(reversed([column[0] for column in takewhile(lambda c: len(set(c)) == 1, columns)]))
        if not found or not ending:
            return None
        start = len(self._encoder.encode(head)) if head else 0
        beyond = len(self._encoder.encode(head + text + OPENING)) - start - len(ids)
        piece = _Piece(before, after, head, beyond, ending)
        if all(
            part(prefix) == (piece.text(prefix.system_prompt), piece.ids(prefix.system_prompt, self._encoder))
            for prefix in prefixes
        ):
            return piece
        return None
