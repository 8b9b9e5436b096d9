"""The chat format of a model: its pre-query prefix, turn markers and stop ids, as text and as token ids.

Owns: how a format is found. Magpie (arXiv 2406.08464) gives a chat model only what its template writes before
the user's text, so that the model writes the user's instruction itself; `derive` finds that text, and all the
others that stand around messages, in any Hugging Face tokenizer with a chat template. What always holds:
nothing is keyed on a model's name; ids are those that the whole dialogue has when it is tokenized, with one
beginning-of-sequence token at most (`ChatFormat.warnings` says where that can't hold). The parts:

    chat_format_type       what comes out, and the prompts it makes
    chat_format_render     knows templates: the texts around messages
    chat_format_tokens     knows tokenizers: their ids
    chat_format_marks      what ends a message, what gives a leaked marker away
    chat_format_system     what system prompts make of the texts before messages
    chat_format_thinking   how templates switch thinking on and off
    chat_format_reasoning  how reasoning is told from an answer's content
    chat_format_load       tokenizers from a folder or from Hugging Face
    chat_format_mistral    those of mistral-common, which have no template
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from magpie_ray.chat_format.encoder import MESSAGE, Encoder
from magpie_ray.chat_format.format import ChatFormat, SystemPrefix
from magpie_ray.chat_format.markers import end_of_message, role_markers
from magpie_ray.chat_format.system_prompts import with_system_prompts
from magpie_ray.chat_format.template import Template, Turns, open_template, read_turns
from magpie_ray.chat_format.thinking import read_thinking, with_thinking
from magpie_ray.errors import FormatError
from magpie_ray.model.tokenizer import LoadedTokenizer, load_tokenizer

__all__ = ["ChatFormat", "LoadedTokenizer", "SystemPrefix", "derive", "load_tokenizer", "message_ids"]

_T = TypeVar("_T")


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

    `system_prompts`: those of the build; "" is none. `date`: what dated templates write, None for today.
    `thinking`: whether answers are thought about first, which the format's `reasoning` then splits off; None
    leaves the template as it is.
    `pre_query_template`: literal text in place of the derived pre-query; what follows messages is still
    derived where there is a chat template. System prompts have no place beside it: they are refused.
    `eos_token_ids`: generation_config's list. `template_variables`: handed to the template as they are.

    Raises FormatError when there is nothing to derive from, when the template refuses a user message, when
    it does not take the system prompts, and when it knows of no thinking that is asked for.
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
        template, frozen = open_template(tokenizer, date=date, variables=template_variables, foreign=prompts)
    except FormatError as exc:
        if pre_query_template is None or thinking:
            raise
        return _pre_query_only(pre_query_template, encoder, ends, str(exc))
    knows = read_thinking(template)
    if thinking and not knows.possible:
        raise FormatError(
            "model.thinking: got true, but this chat template has no place for reasoning: it has no switch "
            "for thinking, and neither opens, writes nor names a block of reasoning. Set model.thinking: "
            "false, or use a model that thinks."
        )
    form = _assemble(template, encoder, ends)
    if switch := {True: knows.on, False: knows.off, None: {}}[thinking]:
        template = replace(template, variables={**template.variables, **switch})
        switched = _assemble(template, encoder, ends)
        # A switch may stand behind the user's text, where no user would write it.
        stops = _unique([*switched.user_stop_token_ids, *form.user_stop_token_ids])
        form = replace(switched, user_stop_token_ids=stops)
    form = replace(form, can_think=knows.possible)
    if pre_query_template is not None:
        form = with_thinking(form, thinking, knows, template, encoder)
        return _with_literal_pre_query(form, pre_query_template, tokenizer, encoder)
    if not form.pre_query_ids:
        raise FormatError(
            "The chat template writes nothing before the user's text, so a model can't be asked for one: "
            "give a text as model.pre_query_template."
        )
    form = with_system_prompts(form, prompts, template, encoder)
    form = with_thinking(form, thinking, knows, template, encoder)
    return replace(form, date=frozen.isoformat() if frozen else None)


def message_ids(
    tokenizer: Any, form: ChatFormat, text: str, *, index: int, system_prompt: str | None = None
) -> list[int]:
    """Ids of a text as message `index` of a dialogue (0: the first, the user's), for `ChatFormat.prompt`.

    For messages whose generated ids are not those of the text: cut at a stop string, stripped, edited.
    `text` is without surrounding white space.
    """
    encoder = Encoder(tokenizer)
    asked = form.pre_query + MESSAGE
    answered = asked + form.history_user_to_assistant + MESSAGE
    moved = next((s for s in form.system_prefixes if s.last_user and s.system_prompt == system_prompt), None)
    if index == 0:
        before, ids = form.prefix_text(system_prompt), [*form.prefix(system_prompt)]
    elif index % 2:
        before = asked + form.history_user_to_assistant
        ids = [*encoder.encode(asked), *form.history_user_to_assistant_ids]
    else:
        before = answered + (moved.last_user if moved else form.next_user)
        ids = [*encoder.encode(answered), *(moved.last_user_ids if moved else form.next_user_ids)]
    whole = encoder.encode(before + text)
    return whole[len(ids) :] if whole[: len(ids)] == ids else encoder.alone(text)


def _assemble(template: Template, encoder: Encoder, ends: Sequence[int]) -> ChatFormat:
    """The format without system prompts and date."""
    turns = read_turns(template)
    asked = turns.pre_query
    answered = asked + MESSAGE + turns.history_user_to_assistant
    pre_query_ids = encoder.piece("", turns.pre_query)
    user_to_assistant_ids = encoder.piece(asked, turns.user_to_assistant)
    next_user_ids = encoder.piece(answered, turns.next_user)
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
        system_role=_system_role(turns),
        role_markers=_unique(role_markers(turns, _tokens_written(turns, encoder))),
        special_token_ids=encoder.special_ids,
        trimmed_roles=trimmed,
        blank_ids=encoder.blank_ids if trimmed else (),
        multi_turn_problem=turns.multi_turn_problem,
    )
    return replace(form, warnings=_warnings(form, turns, encoder))


def _system_role(turns: Turns) -> Literal["supported", "folded_into_user", "rejected"]:
    if turns.around_system is None:
        return "rejected"
    return "folded_into_user" if turns.folds_system else "supported"


def _tokens_written(turns: Turns, encoder: Encoder) -> tuple[str, ...]:
    system = "".join(turns.around_system or ())
    ids = [i for text in (system, *turns.dialogue()) for i in encoder.encode(text)]
    return _unique(encoder.markers[i] for i in ids if i in encoder.markers)


def _warnings(form: ChatFormat, turns: Turns, encoder: Encoder) -> tuple[str, ...]:
    found = []
    if turns.multi_turn_problem:
        found.append(f"With this chat template only one turn can be generated: {turns.multi_turn_problem}.")
    else:
        later = (form.history_user_to_assistant_ids, form.next_user_ids)
        ids = (form.pre_query_ids, *later, *later, form.user_to_assistant_ids)
        if joined := encoder.joins(turns.dialogue(), ids):
            found.append(
                "The tokenizer joins markers with the messages beside them, so that ids differ from those of "
                f"the whole text, in dialogues with messages like {', '.join(map(repr, joined))}."
            )
    if form.stop_strings:
        stops = ", ".join(map(repr, form.stop_strings))
        found.append(f"Not every message is ended by a token: generation also stops at {stops}.")
    return tuple(found)


def _with_literal_pre_query(form: ChatFormat, text: str, tokenizer: Any, encoder: Encoder) -> ChatFormat:
    bos = tokenizer.bos_token_id
    # Where the template opens a dialogue with bos, so does this text, unless that token opens turns as well.
    opens = form.pre_query_ids[:1] == (bos,) and bos not in form.next_user_ids
    literal = Encoder(tokenizer, lead=[bos]) if opens else encoder
    return replace(form, pre_query=text, pre_query_ids=literal.piece("", text), system_role="rejected")


def _pre_query_only(text: str, encoder: Encoder, ends: tuple[int, ...], reason: str) -> ChatFormat:
    ids = encoder.piece("", text)
    return ChatFormat(
        pre_query=text,
        pre_query_ids=ids,
        user_to_assistant="",
        user_to_assistant_ids=(),
        history_user_to_assistant="",
        history_user_to_assistant_ids=(),
        next_user="",
        next_user_ids=(),
        user_stop_token_ids=ends,
        assistant_stop_token_ids=ends,
        system_role="rejected",
        role_markers=_unique(encoder.markers[i] for i in ids if i in encoder.markers),
        special_token_ids=encoder.special_ids,
        can_answer=False,
        multi_turn_problem="no answers can be asked for",
        warnings=(f"Only instructions can be generated. {reason}",),
    )


def _unique(values: Iterable[_T | None]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(value for value in values if value is not None))
