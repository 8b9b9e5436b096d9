"""The chat format of a model as plain fields, for the `template` command."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from magpie_ray.chat_format.format import ChatFormat
from magpie_ray.chat_format.of_model import model_format
from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from magpie_ray.errors import FormatError
from magpie_ray.model.resolve import resolve_model
from magpie_ray.model.tokenizer import load_tokenizer

_AFTER_ANSWERS = ("next_user", "next_user_ids", "user_stop_token_ids", "stop_strings")
_ANSWERS = (
    "user_to_assistant",
    "user_to_assistant_ids",
    "history_user_to_assistant",
    "history_user_to_assistant_ids",
    "assistant_stop_token_ids",
    "reasoning",
)


def make_template(
    name: str,
    *,
    system: str | None = None,
    thinking: bool | None = None,
    own_format: str | None = None,
    template_name: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """The chat format of a model, with the template's own default for thinking where `thinking` is None.

    system: the system prompt of `pre_query_with_system`; None: the paper's multi-turn prompt.
    own_format, template_name: as the keys model.chat_format and model.chat_template_name.
    """
    model = resolve_model(name, revision)
    loaded = load_tokenizer(
        model.location,
        revision=model.revision,
        trust_remote_code=trust_remote_code,
        template_name=template_name,
    )

    def derive(thinking: bool | None, prompts: Sequence[str] = ()) -> ChatFormat:
        return model_format(loaded, own_format=own_format, system_prompts=prompts, thinking=thinking)

    try:
        form = derive(thinking)
    except FormatError:
        if not system:
            raise
        form = derive(thinking, (system,))  # a template may refuse a dialogue without a system message
    text, with_system, refused = _with_system(form, partial(derive, thinking), system)
    prompts = tuple(prefix.system_prompt for prefix in form.system_prefixes)
    fields = form.to_dict()
    stops = {*form.user_stop_token_ids, *form.assistant_stop_token_ids}
    return {
        "model": model.name,
        "commit": model.commit,
        "tokenizer": type(loaded.tokenizer).__name__,
        **{name: fields[name] for name in ("pre_query", "pre_query_ids", "system_role")},
        "system_prompt": text if with_system else None,
        "pre_query_with_system": with_system.prefix_text(text) if with_system else None,
        "pre_query_with_system_ids": list(with_system.prefix(text)) if with_system else None,
        **_answers(form),
        **{name: fields[name] for name in _AFTER_ANSWERS},
        "tokens": {str(i): loaded.tokenizer.convert_ids_to_tokens(i) or "" for i in sorted(stops)},
        **{name: fields[name] for name in ("role_markers", "trimmed_roles", "multi_turn_problem")},
        "thinking": thinking,
        "can_think": form.can_think,
        "thinking_on": _answers(derive(True, prompts)) if form.can_think else None,
        "thinking_off": _answers(derive(False, prompts)) if form.can_think else None,
        "date": form.date,
        "warnings": list(dict.fromkeys([*form.warnings, *(with_system or form).warnings, *refused])),
    }


def _with_system(
    form: ChatFormat, derive: Any, system: str | None
) -> tuple[str, ChatFormat | None, Iterable[str]]:
    """The system text, the format with it (None: refused), and why a system text of the user's is refused."""
    text = system or MULTI_TURN_PROMPT
    try:
        derived = derive((text,))
    except FormatError as exc:
        if form.takes_system:
            raise
        return text, None, (str(exc),) if system else ()
    return text, derived if derived.system_prefixes else None, ()


def _answers(form: ChatFormat) -> dict[str, Any]:
    """The fields about answers: what asks for them, what ends them, how reasoning is split off."""
    fields = form.to_dict()
    return {name: fields[name] for name in _ANSWERS}
