"""From a config to a BuildSpec: the model, its chat format, what rows start with, and whether all of it fits.

Invariants: neither the output nor a cluster is touched, and no weights are loaded; a config that does not fit
its model is refused, in one clear message.
"""

import datetime
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from magpie_ray.acceptance import build_rules
from magpie_ray.chat_format import ChatFormat
from magpie_ray.chat_format.of_model import model_format
from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.job import SeedValue
from magpie_ray.config.loading import JobConfig, WritingConfig
from magpie_ray.config.output_path import Tick
from magpie_ray.config.problems import show
from magpie_ray.config.schema import Config
from magpie_ray.config.score import ScoreConfig
from magpie_ray.dataset.answer_columns import answer_columns
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.errors import ConfigError
from magpie_ray.model.context import context_length, may_change_context
from magpie_ray.model.resolve import Model, resolve_model
from magpie_ray.model.tokenizer import LoadedTokenizer, load_tokenizer
from magpie_ray.preflight.build_spec import BuildSpec, check_prompts_fit
from magpie_ray.preflight.engine_arguments import check_batch, check_engine_extra
from magpie_ray.preflight.first_tokens import check_first_tokens, of_hot_first_tokens
from magpie_ray.preflight.inputs import format_for_inputs, input_warnings, prefixes_of, scan_inputs
from magpie_ray.preflight.scores import check_columns, template_date
from magpie_ray.preflight.sources import first_rows, first_start, look_at_source_of
from magpie_ray.types import SystemPrompt

log = logging.getLogger(__name__)

# Names in engine.extra with which vLLM's engine has another context than config.json says.
_OTHER_CONTEXT = {"hf_config_path", "config_format"}
_ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"  # vLLM's own variable


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ready:
    """What is known of a job's model, whatever the job. recorded: the identity of the build that exists.

    context: the model's, in tokens; room: that, or engine.max_model_len. None where it is not known.
    """

    recorded: Mapping[str, Any]
    model: Model
    loaded: LoadedTokenizer
    context: int | None
    room: int | None


def resolve_build(
    config: JobConfig, existing: BuildRecord | None = None, *, tick: Tick | None = None
) -> BuildSpec:
    """Resolve the model and its chat format. What `existing` has already resolved, and drawn, is kept.

    tick: which build of a schedule it is.

    FormatError when no format can be derived, or it does not support what the config needs; ConfigError when
    engine.max_model_len is more than the model's context, a prompt does not fit, an acceptance rule can't be
    loaded, or engine.extra is not what the installed vLLM takes; PreflightError when the source of a pass is
    not what it should be.
    """
    if not isinstance(config, ScoreConfig):
        build_rules(config.acceptance)
    check_engine_extra(config.engine.extra)
    recorded: Mapping[str, Any] = existing.identity if existing else {}
    warnings = list[str]()
    if not isinstance(config, ScoreConfig):
        seed, warnings = _seed(config, recorded.get("seed"), tick)
        config = config.model_copy(update={"seed": seed})
        warnings += of_hot_first_tokens(config)
    match config:
        case AnswerConfig():
            build_spec, ready = _answering(config, recorded)
        case ScoreConfig():
            build_spec, ready = _scoring(config, recorded)
        case Config():
            build_spec, ready = _generating(config, recorded)
    check_batch(config, room=ready.room)
    build_spec = replace(build_spec, warnings=(*warnings, *build_spec.warnings), tick=tick)
    _check_max_model_len(build_spec, ready.context)
    if ready.room and not isinstance(config, ScoreConfig):
        check_prompts_fit(build_spec, max_model_len=ready.room)
    return build_spec


def _ready(config: JobConfig, recorded: Mapping[str, Any]) -> _Ready:
    model = resolve_model(config.model.name, config.model.revision or _known_commit(config, recorded))
    if "hf_config_path" not in config.engine.extra:
        model.check_config()
    if config.model.trust_remote_code:
        log.warning(
            "model.trust_remote_code: Python code of %s at %s runs here and on every node that loads it, "
            "with all rights of this job",
            model.name,
            model.commit,
        )
    loaded = load_tokenizer(
        model.location,
        revision=model.revision,
        trust_remote_code=config.model.trust_remote_code,
        template_name=config.model.chat_template_name,
    )
    context = context_length(model, trust_remote_code=config.model.trust_remote_code)
    return _Ready(
        recorded=recorded,
        model=model,
        loaded=loaded,
        context=context,
        room=config.engine.max_model_len or context,
    )


def _generating(config: Config, recorded: Mapping[str, Any]) -> tuple[BuildSpec, _Ready]:
    """The spec of `generate`."""
    ready = _ready(config, recorded)
    loaded = ready.loaded
    form, prompts, warnings = _format_with_prompts(config, ready)
    form.require(turns=config.turns, answers=config.messages_per_row > 1)
    check_first_tokens(config, form, loaded.tokenizer)
    inputs = first_input = None
    if config.has_inputs:
        prefixes = prefixes_of(config, loaded, form)
        inputs = scan_inputs(config, form, prefixes, room=ready.room)
        [first_input] = prefixes.of([inputs.first_prompt]) if inputs.first_prompt else [form.start(None)]
        config = config.model_copy(update={"num_rows": config.num_rows or inputs.number})
        warnings = [*input_warnings(config, inputs), *warnings]
    users = [settings for settings, _ in config.sampling.mix("user")]
    if config.num_rows > 1 and all(s.temperature == 0 and not s.first_tokens.temperature for s in users):
        warnings.insert(
            0, "sampling.user.temperature is 0: all rows that share a system prompt get the same instruction"
        )
    build_spec = BuildSpec(
        config=config,
        model=ready.model,
        chat_format=form,
        prompts=prompts,
        warnings=(*warnings, *form.warnings),
        inputs=inputs,
        first_input=first_input,
    )
    return build_spec, ready


def _answering(config: AnswerConfig, recorded: Mapping[str, Any]) -> tuple[BuildSpec, _Ready]:
    """The spec of `answer`."""
    own = [column.name for column in answer_columns(config, one_turn=True)]
    source, num_rows = look_at_source_of(config, own)
    ready = _ready(config, recorded)
    form = format_for_inputs(partial(_derived, config, ready))
    form.require(turns=config.turns, answers=True)
    check_first_tokens(config, form, ready.loaded.tokenizer)
    config = config.model_copy(update={"num_rows": num_rows})
    first = first_start(config, source, prefixes_of(config, ready.loaded, form), form)
    build_spec = BuildSpec(
        config=config,
        model=ready.model,
        chat_format=form,
        prompts=(),
        warnings=(*source.warnings, *form.warnings),
        source=source,
        first_input=first,
    )
    return build_spec, ready


def _scoring(config: ScoreConfig, recorded: Mapping[str, Any]) -> tuple[BuildSpec, _Ready]:
    """The spec of `score`."""
    source, num_rows = look_at_source_of(config, ["row_id", *config.names])
    ready = _ready(config, recorded)
    form = _derived(config, ready, ()) if config.kind == "choice" else None
    config = config.model_copy(update={"num_rows": num_rows})
    date = template_date(config, ready.loaded, ready.recorded.get("date"))
    asked = check_columns(
        config,
        first_rows(config, source),
        model=ready.model,
        loaded=ready.loaded,
        form=form,
        several=source.shape.responses,
        date=date,
    )
    build_spec = BuildSpec(
        config=config,
        model=ready.model,
        chat_format=form,
        prompts=(),
        warnings=(*source.warnings, *(form.warnings if form else ())),
        source=source,
        first_input=asked.first_prompt,
        read_tokens=asked.read_tokens,
        vector_size=asked.vector_size,
        date=date,
        is_ordered=not recorded or "columns.order" in recorded,
    )
    return build_spec, ready


def _seed(config: WritingConfig, recorded: int | None, tick: Tick | None) -> tuple[SeedValue, list[str]]:
    """The seed, which an existing build has drawn, and warnings."""
    if config.seed == "auto":
        return ("auto" if recorded is None else recorded), []
    if tick is None:
        return config.seed, []
    same = "hold the same rows" if config.sampling.reproducible else "begin alike, and may hold equal rows"
    return config.seed, [
        f"seed is {config.seed} for every build of {tick.template}: builds of the same config then "
        f"{same}. Leave seed out, or set it to auto, and each build draws a seed of its own"
    ]


def _derived(config: JobConfig, ready: _Ready, prompts: tuple[SystemPrompt, ...]) -> ChatFormat:
    """The chat format with these prompts. A build that exists keeps the date that its format has."""
    date = ready.recorded.get("chat_format.date")
    return model_format(
        ready.loaded,
        own_format=config.model.chat_format,
        pre_query_template=config.model.pre_query_template,
        system_prompts=[p.text for p in prompts],
        date=datetime.date.fromisoformat(date) if date else None,
        thinking=config.model.thinking,
    )


def _format_with_prompts(
    config: Config, ready: _Ready
) -> tuple[ChatFormat, tuple[SystemPrompt, ...], list[str]]:
    """The chat format, the prompts that it takes, and warnings.

    Only the default prompt may be left out: ConfigError or FormatError when a prompt of the user's own is
    not taken.
    """
    derived = partial(_derived, config, ready)
    if config.has_inputs:
        return format_for_inputs(derived), (), []
    left_out = "the paper's multi-turn system prompt is left out: this chat format"
    if config.prompts_are_default:
        bare = derived(())
        if not bare.takes_system or config.model.pre_query_template is not None:
            return bare, (), [f"{left_out} takes no system message"]
    form = derived(config.prompts)
    known = {prefix.system_prompt for prefix in form.system_prefixes}
    lacking = [prompt.text for prompt in config.prompts if prompt.text not in known]
    if not lacking:
        return form, config.prompts, []
    if config.prompts_are_default:
        return form, (), [f"{left_out} was made without it"]
    raise ConfigError(
        f"model.chat_format: {config.model.chat_format} gave a format without the system prompt "
        f"{show(lacking[0])}: let the function take system_prompts and hand them on to derive, or "
        "remove system_prompt"
    )


def _check_max_model_len(build_spec: BuildSpec, context: int | None) -> None:
    """ConfigError where vLLM would refuse engine.max_model_len. context: None where it is not known."""
    engine = build_spec.config.engine
    if context is None or engine.max_model_len is None or engine.max_model_len <= context:
        return
    allowed = os.environ.get(_ALLOW_LONG, "").strip().lower() in ("1", "true")
    overridden = may_change_context(engine.extra.get("hf_overrides") or {})
    if allowed or overridden or _OTHER_CONTEXT & set(engine.extra):
        return
    raise ConfigError(
        f"engine.max_model_len: got {engine.max_model_len:,}, must be at most {context:,}, the context of "
        f"{build_spec.model.name} by its config.json: lower it, or leave it out. Where longer sequences are "
        f"known to work, set {_ALLOW_LONG}=1 here and on every node"
    )


def _known_commit(config: JobConfig, recorded: Mapping[str, Any]) -> str | None:
    """The commit that the build resolved the model to; None for another model, or for a folder's digest."""
    name, commit = recorded.get("model.name"), recorded.get("model.commit")
    if name != config.model.name or commit is None or Model(name=name, commit=commit).is_folder:
        return None
    return str(commit)
