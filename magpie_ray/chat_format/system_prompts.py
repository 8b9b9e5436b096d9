"""The prefix of each system prompt of a build.

Invariant: a system prompt is refused when the template refuses, drops or changes it, or when it contains a
special token.
"""

from collections.abc import Sequence
from dataclasses import replace

from magpie_ray.chat_format.encoder import MESSAGE, Encoder
from magpie_ray.chat_format.format import ChatFormat, SystemPrefix
from magpie_ray.chat_format.template import Template
from magpie_ray.errors import FormatError


def with_system_prompts(
    form: ChatFormat, prompts: Sequence[str], template: Template, encoder: Encoder
) -> ChatFormat:
    """The format with a prefix for each prompt.

    Raises FormatError for a prompt that the template does not take.
    """
    if prompts and not form.takes_system:
        raise FormatError(
            "The chat template takes no system prompt: it refuses one or leaves it out. Remove system_prompt "
            '(system_prompt: "" is none at all), or use a model whose template has a system role.'
        )
    entries = [system_prefix(form, prompt, template, encoder) for prompt in prompts]
    warnings = []
    if any(entry.last_user for entry, _ in entries):
        warnings.append(
            "The template moves the system text to the last user message: no prompt continues the one before "
            "it, and earlier turns may have other ids than in the whole text where spaces join words."
        )
    problem = next((problem for _, problem in entries if problem), None)
    if problem:
        warnings.append(f"With this chat template only one turn can be generated: {problem}.")
    return replace(
        form,
        system_prefixes=tuple(entry for entry, _ in entries),
        multi_turn_problem=form.multi_turn_problem or problem,
        warnings=(*form.warnings, *warnings),
    )


def system_prefix(
    form: ChatFormat, prompt: str, template: Template, encoder: Encoder
) -> tuple[SystemPrefix, str | None]:
    """The prefix with a system prompt, and why later turns can't be generated with it (None: they can)."""
    special = (encoder.markers.get(token_id) for token_id in encoder.special_ids)
    leak = next((token for token in special if token and token in prompt), None)
    if leak:
        raise FormatError(
            f"The system prompt {prompt!r} contains {leak!r}, which is a special token of the model and "
            "would be read as markup: write it otherwise."
        )
    text, ending = template.around(prompt, 1)
    if prompt.strip() not in text or ending != form.user_to_assistant:
        raise FormatError(f"The chat template does not write the system prompt {prompt!r} as it is given.")
    prefix = SystemPrefix(system_prompt=prompt, text=text, ids=encoder.piece("", text))
    if form.multi_turn_problem:
        return prefix, None
    history, next_user = form.history_user_to_assistant, form.next_user
    first, *middle, last_user, ending = template.try_around(prompt, 5) or ("",) * 6
    is_regular = (middle, ending) == ([history, next_user, history], form.user_to_assistant)
    if is_regular and (first, last_user) == (text, next_user):
        return prefix, None
    if not is_regular or first != form.pre_query:
        return prefix, f"it writes later turns otherwise with the system prompt {prompt!r}"
    answered = form.pre_query + MESSAGE + history + MESSAGE
    pre_query_ids, next_user_ids = form.pre_query_ids, form.next_user_ids
    if encoder.keeps_blanks(text, prefix.ids):
        # A message written behind the system text has no leading space of its own once the text moves on.
        pre_query_ids = tuple(encoder.encode(form.pre_query))
        next_user_ids = tuple(encoder.encode(answered + next_user)[len(encoder.encode(answered)) :])
    moving = replace(
        prefix,
        last_user=last_user,
        last_user_ids=encoder.piece(form.pre_query + MESSAGE + history, last_user),
        earlier_pre_query_ids=pre_query_ids,
        earlier_next_user_ids=next_user_ids,
    )
    return moving, None
