"""How a chat format is derived from a tokenizer.

Owns: the order of the steps. `derive` renders the template, tokenizes the texts around messages, finds what
ends each message, then adds system prompts and thinking.
"""

import datetime
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from magpie_ray.chat_format.encoder import MESSAGE, Encoder
from magpie_ray.chat_format.format import ChatFormat, SystemPrefix
from magpie_ray.chat_format.markers import end_of_message, role_markers, role_problem
from magpie_ray.chat_format.system_prompts import with_system_prompts
from magpie_ray.chat_format.template import Template, Turns, open_template, read_turns
from magpie_ray.chat_format.thinking import REASONING_MARKS, Thinking, read_thinking, with_thinking
from magpie_ray.errors import FormatError

_T = TypeVar("_T")

_NO_REASONING = (
    "model.thinking: got true, but this chat template has no place for reasoning: it has no switch for "
    "thinking, and neither opens, writes nor names a block of reasoning. Set model.thinking: false, or use a "
    "model that thinks."
)


def derive(
    tokenizer: Any,
    *,
    system_prompts: Sequence[str] = (),
    date: datetime.date | None = None,
    pre_query_template: str | None = None,
    thinking: bool | None = None,
    eos_token_ids: Sequence[int] = (),
    template_variables: Mapping[str, Any] = MappingProxyType({}),
) -> ChatFormat:
    """The chat format of a tokenizer.

    system_prompts: the system prompts of the build; "" means none.
    date: the date that a dated template writes; None for today.
    pre_query_template: literal text in place of the derived pre-query. The other texts are still derived
    where the tokenizer has a chat template. System prompts are refused beside it.
    thinking: True asks for reasoning before each answer, which `ChatFormat.reasoning` splits off; False
    avoids reasoning; None leaves the template as it is.
    eos_token_ids: the list in generation_config.json.
    template_variables: more variables for the template.

    Raises FormatError when the tokenizer has no template, when the template refuses a user message or one of
    the system prompts, and when `thinking` is true for a template without a place for reasoning.
    """
    prompts = _unique(prompt for prompt in system_prompts if prompt)
    if pre_query_template is not None and prompts:
        raise FormatError(
            "model.pre_query_template is all the text before the user's, so a system prompt has no place "
            "beside it: write the system text into the template, or leave one of the two out."
        )
    encoder = Encoder(tokenizer)
    ends = _unique([tokenizer.eos_token_id, *eos_token_ids])
    try:
        opened = open_format(
            tokenizer,
            encoder,
            system_prompts=prompts,
            date=date,
            thinking=thinking,
            ends=ends,
            template_variables=template_variables,
        )
    except NoTemplateError as exc:
        if pre_query_template is None or thinking:
            raise
        return _pre_query_only(pre_query_template, encoder, ends, str(exc))
    form, template, knows = opened.form, opened.template, opened.thinking
    form = replace(form, can_think=knows.possible)
    if pre_query_template is not None:
        form = with_thinking(form, thinking, knows, template, encoder)
        form = _with_literal_pre_query(form, pre_query_template, tokenizer, encoder)
        return _with_prompt_warnings(form, tokenizer, encoder)
    if not form.pre_query_ids:
        raise FormatError(
            "The chat template writes nothing before the user's text, so a model can't be asked for one: "
            "give a text as model.pre_query_template."
        )
    form = with_system_prompts(form, prompts, template, encoder)
    form = with_thinking(form, thinking, knows, template, encoder)
    form = _with_prompt_warnings(form, tokenizer, encoder)
    return replace(form, date=opened.date.isoformat() if opened.date else None)


class NoTemplateError(FormatError):
    """The tokenizer has no chat template that renders."""


class OpenedFormat(NamedTuple):
    """The first half of `derive`: the format without system prompts and thinking, and what led to it.

    template: with its switch for thinking set. date: that the template writes; None where it writes none.
    """

    form: ChatFormat
    template: Template
    thinking: Thinking
    date: datetime.date | None


def open_format(
    tokenizer: Any,
    encoder: Encoder,
    *,
    system_prompts: Sequence[str],
    date: datetime.date | None,
    thinking: bool | None,
    ends: Sequence[int],
    template_variables: Mapping[str, Any],
) -> OpenedFormat:
    """The first half of `derive`, with its arguments. Raises NoTemplateError, and FormatError as `derive`."""
    try:
        template, frozen = open_template(
            tokenizer, date=date, variables=template_variables, foreign=system_prompts
        )
    except FormatError as exc:
        raise NoTemplateError(str(exc)) from exc
    knows = read_thinking(template)
    if thinking and not knows.possible:
        raise FormatError(_NO_REASONING)
    form = _assemble(template, encoder, ends)
    if switch := {True: knows.on, False: knows.off, None: {}}[thinking]:
        template = replace(template, variables={**template.variables, **switch})
        form = _switched(form, _assemble(template, encoder, ends))
    return OpenedFormat(form, template, knows, frozen)


def _switched(plain: ChatFormat, switched: ChatFormat) -> ChatFormat:
    """The format with the template's switch for thinking. plain: the format without it."""
    # The switch may be a text behind the user's message, which a model as the user never writes.
    stops = _unique([*switched.user_stop_token_ids, *plain.user_stop_token_ids])
    return replace(switched, user_stop_token_ids=stops)


def message_ids(
    tokenizer: Any,
    form: ChatFormat,
    text: str,
    *,
    index: int,
    system_prompt: str | None = None,
    prefix: SystemPrefix | None = None,
    generated: Collection[int] = (),
) -> list[int]:
    """Ids of a text as message `index` of a dialogue (0: the first, the user's), for `ChatFormat.prompt`.

    Needed for messages that were changed after generation: cut at a stop string, stripped, edited.
    tokenizer: or its Encoder, made once for many messages. text: without surrounding white space. prefix: of
    the dialogue; None for that of the system prompt. A marker in the text, such as "<eos>", is text too,
    except those whose ids are in `generated`.
    """
    encoder = tokenizer if isinstance(tokenizer, Encoder) else Encoder(tokenizer)
    asked = form.pre_query + MESSAGE
    answered = asked + form.history_user_to_assistant + MESSAGE
    start = prefix or form.start(system_prompt)
    if index == 0:
        before, ids = start.text, [*start.ids]
    elif index % 2:
        before = asked + form.history_user_to_assistant
        ids = [*encoder.encode(asked), *form.history_user_to_assistant_ids]
    else:
        before = answered + (start.last_user or form.next_user)
        next_user_ids = start.last_user_ids if start.last_user else form.next_user_ids
        ids = [*encoder.encode(answered), *next_user_ids]
    whole = encoder.message(before, text, generated=generated)
    if whole[: len(ids)] == ids:
        return whole[len(ids) :]
    return encoder.message("", text, generated=generated)[len(encoder.lead) :]


def _assemble(template: Template, encoder: Encoder, ends: Sequence[int]) -> ChatFormat:
    """The format without system prompts, thinking and date."""
    turns = read_turns(template)
    asked = turns.pre_query
    answered = asked + MESSAGE + turns.history_user_to_assistant
    pre_query_ids = encoder.piece("", turns.pre_query)
    user_to_assistant_ids = encoder.piece(asked, turns.user_to_assistant)
    next_user_ids = encoder.piece(answered, turns.next_user)
    texts = ("".join(turns.around_system or ()), *turns.dialogue())
    written = _unique(encoder.markers.get(i) for text in texts for i in encoder.encode(text))
    user_end = end_of_message(turns.user_to_assistant, user_to_assistant_ids, encoder.markers)
    assistant_end = end_of_message(turns.next_user, next_user_ids, encoder.markers)
    trimmed = tuple(
        role
        for role, end in (("user", user_end), ("assistant", assistant_end))
        if end.blank_before or (not turns.multi_turn_problem and template.trims(role))
    )
    form = ChatFormat(
        pre_query=turns.pre_query,
        pre_query_ids=pre_query_ids,
        user_to_assistant=turns.user_to_assistant,
        user_to_assistant_ids=user_to_assistant_ids,
        history_user_to_assistant=turns.history_user_to_assistant,
        history_user_to_assistant_ids=encoder.piece(asked, turns.history_user_to_assistant),
        next_user=turns.next_user,
        next_user_ids=next_user_ids,
        user_stop_token_ids=_unique([user_end.token_id, *ends]),
        assistant_stop_token_ids=_unique([assistant_end.token_id, *ends]),
        stop_strings=_unique(end.text for end in (user_end, assistant_end) if end.text),
        system_role=turns.system_role,
        role_markers=_unique(role_markers(turns, written)),
        special_token_ids=encoder.special_ids,
        trimmed_roles=trimmed,
        blank_ids=encoder.blank_ids if trimmed else (),
        multi_turn_problem=turns.multi_turn_problem,
    )
    return replace(form, warnings=_warnings(form, turns, encoder))


def _warnings(form: ChatFormat, turns: Turns, encoder: Encoder) -> tuple[str, ...]:
    warnings = []
    if turns.multi_turn_problem:
        warnings.append(
            f"With this chat template only one turn can be generated: {turns.multi_turn_problem}."
        )
    else:
        later = (form.history_user_to_assistant_ids, form.next_user_ids)
        ids = (form.pre_query_ids, *later, *later, form.user_to_assistant_ids)
        if joined := encoder.joins(turns.dialogue(), ids):
            warnings.append(
                "The tokenizer joins markers with the messages beside them, so that ids differ from those of "
                f"the whole text, in dialogues with messages like {', '.join(map(repr, joined))}."
            )
    if "\ufeff" in form.pre_query:
        warnings.append(
            "The chat template writes a byte-order mark (U+FEFF) into every prompt: save it without one."
        )
    if form.stop_strings:
        stops = ", ".join(map(repr, form.stop_strings))
        warnings.append(f"Not every message is ended by a token: generation also stops at {stops}.")
    return tuple(warnings)


def _with_prompt_warnings(form: ChatFormat, tokenizer: Any, encoder: Encoder) -> ChatFormat:
    """The format with warnings of prompts that a model may not know."""
    warnings = []
    generation, history = form.user_to_assistant, form.history_user_to_assistant
    marks = tuple(encoder.markers.values())
    if problem := role_problem(generation, history, tokens=marks, reasoning=REASONING_MARKS):
        warnings.append(f"The chat template may be wrong: {problem}.")
    prefixes = [(form.pre_query, form.pre_query_ids), *((s.text, s.ids) for s in form.system_prefixes)]
    bos, lead = tokenizer.bos_token_id, tuple(encoder.lead)
    named = encoder.markers.get(bos, "the beginning-of-sequence token")
    if lead and any(tuple(encoder.alone(text)[: len(lead)]) != lead for text, _ in prefixes):
        names = ", ".join(encoder.markers.get(token_id, str(token_id)) for token_id in lead)
        warnings.append(
            f"Prompts begin with {names}, which the tokenizer puts there and the chat template does not "
            "write: apply_chat_template of transformers leaves it out."
        )
    again = re.compile(rf"\s*{re.escape(named)}\s+{re.escape(named)}")
    if any(ids[:2] == (bos, bos) or again.match(text) for text, ids in prefixes):
        warnings.append(f"Prompts begin with {named} twice: the chat template writes it so.")
    return replace(form, warnings=(*form.warnings, *warnings))


def _with_literal_pre_query(form: ChatFormat, text: str, tokenizer: Any, encoder: Encoder) -> ChatFormat:
    bos = tokenizer.bos_token_id
    # The text gets the bos token that the template puts in front, unless that token also opens later turns.
    opens = form.pre_query_ids[:1] == (bos,) and bos not in form.next_user_ids
    literal = Encoder(tokenizer, lead=[bos]) if opens else encoder
    return replace(form, pre_query=text, pre_query_ids=literal.piece("", text), system_role="rejected")


def _pre_query_only(text: str, encoder: Encoder, ends: tuple[int, ...], reason: str) -> ChatFormat:
    ids = encoder.piece("", text)
    return ChatFormat(
        pre_query=text,
        pre_query_ids=ids,
        user_stop_token_ids=ends,
        assistant_stop_token_ids=ends,
        system_role="rejected",
        role_markers=_unique(map(encoder.markers.get, ids)),
        special_token_ids=encoder.special_ids,
        can_answer=False,
        multi_turn_problem="no answers can be asked for",
        warnings=(f"Only instructions can be generated. {reason}",),
    )


def _unique(values: Iterable[_T | None]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(value for value in values if value is not None))
