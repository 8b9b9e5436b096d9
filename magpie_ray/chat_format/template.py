"""The texts that a chat template writes around messages, found by rendering sentinels.

Owns: every call that renders a template. Invariants: a message is found by its position in the rendered text.
A rendering that loses, repeats or reorders a message raises FormatError. The clock matters only through the
date that the caller gives.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError

from magpie_ray.chat_format.format import SystemRole
from magpie_ray.errors import FormatError

# Errors of a template that refuses a dialogue: on purpose (raise_exception is a TemplateError), or because it
# handles a message in a way that the content does not allow.
_REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A tokenizer's chat template with fixed date and variables.

    word: a text that occurs nowhere else; sentinels are made of it.
    as_date_string: pass the date as the variable `date_string` too, for templates that read no clock.
    as_parts: write contents as lists of typed parts, for templates that take no plain text.
    demanded: the system text of dialogues without one, for templates that refuse such dialogues.
    """

    tokenizer: Any
    date: datetime.date
    word: str
    variables: Mapping[str, Any]
    as_date_string: bool = False
    as_parts: bool = False
    demanded: str | None = None

    def around(self, system_prompt: str | None, messages: int) -> tuple[str, ...]:
        """The `messages` + 1 texts before, between and after that many messages, the first from the user.

        The generation prompt follows the last message if it is the user's. Raises FormatError when the
        template refuses the dialogue or does not write each message once, in order.
        """
        contents = [f"{self.word}{index}x" for index in range(messages)]
        rest = self.render(system_prompt, contents)
        pieces = []
        for index, content in enumerate(contents):
            before, found, rest = rest.partition(content)
            if not found or content in rest:
                raise FormatError(f"The chat template does not write message {index + 1} of {messages} once")
            pieces.append(before)
        return *pieces, rest

    def try_around(self, system_prompt: str | None, messages: int) -> tuple[str, ...] | None:
        """The result of `around`, or None where the template refuses the dialogue."""
        try:
            return self.around(system_prompt, messages)
        except FormatError:
            return None

    def trims(self, role: str) -> bool:
        """Whether the template removes white space at the end of the role's messages."""
        ends = {"user": "", "assistant": "", role: "\n \n"}
        contents = [f"{self.word}{index}x{ends[name]}" for index, name in enumerate(_roles(3))]
        text = self.render(None, contents)
        return any(content not in text for content in contents)

    @property
    def source(self) -> str:
        """The source of the template."""
        template = self.tokenizer.chat_template
        return str(template.get("default", template) if isinstance(template, dict) else template)

    def render(
        self,
        system_prompt: str | None,
        contents: Sequence[str],
        *,
        fields: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
    ) -> str:
        """The rendered dialogue of these contents, with the generation prompt after a user message.

        fields: index of a message -> its fields beside role and content.
        """
        written = [
            {"role": role, "content": self._content(content), **fields.get(index, {})}
            for index, (role, content) in enumerate(zip(_roles(len(contents)), contents, strict=True))
        ]
        system_prompt = self.demanded if system_prompt is None else system_prompt
        if system_prompt is not None:
            written.insert(0, {"role": "system", "content": self._content(system_prompt)})
        variables = dict(self.variables, strftime_now=self.date.strftime)
        if self.as_date_string:
            variables["date_string"] = self.date.strftime("%d %b %Y")
        try:
            text = self.tokenizer.apply_chat_template(
                written, tokenize=False, add_generation_prompt=len(contents) % 2 == 1, **variables
            )
        except _REFUSALS as exc:
            raise FormatError(f"The chat template refuses the dialogue: {exc}") from exc
        return str(text)

    def _content(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self.as_parts else text


def open_template(
    tokenizer: Any, *, date: datetime.date | None, variables: Mapping[str, Any], foreign: Sequence[str]
) -> tuple[Template, datetime.date | None]:
    """The tokenizer's template, and the date that its text depends on (None: on no date).

    date: None means today. A template that reads a clock gets this date. A template that reads no clock but
    takes a `date_string` (Llama 3.1) keeps its own constant unless `date` is given.
    foreign: other texts that will be rendered; sentinels must differ from them.
    Raises FormatError when there is no template, or when it refuses a single user message.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise FormatError(
            "The tokenizer has no chat template, so nothing says where a user's text begins. Base models "
            "have none: use the instruct/chat model, or give the text as model.pre_query_template."
        )
    _check_template(tokenizer.chat_template)
    day = date or datetime.datetime.now().astimezone().date()
    word = _unused_word([*foreign, str(tokenizer.chat_template), *map(str, variables.values())])
    template = Template(tokenizer=tokenizer, date=day, word=word, variables=variables)
    if template.try_around(None, 1) is None:
        template = _that_renders(template, foreign)
    if _depends_on_date(template):
        return template, day
    by_name = replace(template, as_date_string=True)
    if date is not None and _depends_on_date(by_name):
        return by_name, day
    return template, None


def _check_template(template: Any) -> None:
    """FormatError where it is no text, or where nothing says which of several texts counts."""
    named = template if isinstance(template, dict) else {"default": template}
    if "default" not in named:
        raise FormatError(
            f"The model has the chat templates {', '.join(map(repr, named))}, and none is the default one: "
            "name one as model.chat_template_name (--chat-template-name)."
        )
    if not isinstance(named["default"], str):
        raise FormatError(
            f"The model's chat template is no text but {named['default']!r}: mend it, or take the model's "
            "files from their source again."
        )


def _that_renders(template: Template, system_prompts: Sequence[str]) -> Template:
    """A variant that renders, for a template that refuses the plain text of a user."""
    as_parts = replace(template, as_parts=True)
    if as_parts.try_around(None, 1):
        return as_parts
    for variant in (template, as_parts):
        if variant.try_around(template.word, 1) is None:
            continue
        if not system_prompts:
            raise FormatError(
                "The chat template refuses a dialogue without a system message: set system_prompt (--system)."
            )
        return replace(variant, demanded=system_prompts[0])
    try:
        template.around(None, 1)
    except FormatError as exc:
        begin = template.source.strip()[:40]
        raise FormatError(f"{exc}. Check the template, which begins with {begin!r}.") from exc
    return template


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """The texts around messages.

    around_system: the texts before and behind a system prompt, up to the first user message; None where the
    template takes no system prompt.
    """

    pre_query: str
    user_to_assistant: str
    history_user_to_assistant: str
    next_user: str
    multi_turn_problem: str | None
    around_system: tuple[str, str] | None

    @property
    def system_role(self) -> SystemRole:
        """Where the system text stands: in a place of its own, inside the user's message, nowhere."""
        if self.around_system is None:
            return "rejected"
        # A system text in a place of its own is followed by the same opener as every user message.
        texts = (self.around_system[1], self.pre_query, self.next_user or self.pre_query)
        endings = zip(*map(reversed, texts), strict=False)
        opener = takewhile(lambda characters: len(set(characters)) == 1, endings)
        return "folded_into_user" if all(c.isspace() for c, *_ in opener) else "supported"

    def dialogue(self) -> tuple[str, ...]:
        """The six texts around the five messages of three turns; the last turn has no answer yet."""
        later = (self.history_user_to_assistant, self.next_user)
        return (self.pre_query, *later, *later, self.user_to_assistant)


def read_turns(template: Template) -> Turns:
    """The texts around messages; only those of the first turn where later turns differ."""
    pre_query, user_to_assistant = template.around(None, 1)
    two, three = (template.try_around(None, messages) for messages in (3, 5))
    _, history, next_user, _ = two or ("", user_to_assistant, "", "")
    system = template.try_around(template.word, 1) or ("", "")
    before, found, after = system[0].partition(template.word)
    turns = Turns(
        pre_query=pre_query,
        user_to_assistant=user_to_assistant,
        history_user_to_assistant=history,
        next_user=next_user,
        multi_turn_problem=None,
        around_system=(before, after) if found else None,
    )
    if three == turns.dialogue() and two == (*three[:3], user_to_assistant):
        return turns
    reason = (
        "it writes later turns otherwise than the first one" if two and three else "it refuses later turns"
    )
    return replace(turns, multi_turn_problem=reason)


def _roles(messages: int) -> list[str]:
    return ["user" if index % 2 == 0 else "assistant" for index in range(messages)]


def _depends_on_date(template: Template) -> bool:
    # 400 days later the year, the month, the day and the weekday all differ.
    later = replace(template, date=template.date + datetime.timedelta(days=400))
    return any(
        template.try_around(system, 1) != later.try_around(system, 1) for system in (None, template.word)
    )


def _unused_word(texts: Sequence[str]) -> str:
    word = "Qmessage"
    while any(word in text for text in texts):
        word += "q"
    return word
