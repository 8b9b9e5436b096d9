"""What a worker is made from, as plain data that travels to its actor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from magpie_ray import draws
from magpie_ray.config.loading import JobConfig
from magpie_ray.engine.protocol import Engine
from magpie_ray.engine.scoring import ScoringEngine
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.storage.storage import Storage
from magpie_ray.utils import logs
from magpie_ray.utils.import_path import code_of_main

# Often enough for a progress line.
PROGRESS_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStart:
    """What differs between the workers of a run: the number of the engine start, and how often it reports."""

    engine_start: int
    progress_seconds: float = PROGRESS_SECONDS


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSpec:
    """Everything a worker is made from. engine_start: number of the engine start within the run.

    on_ray: whether the worker's process has joined a Ray cluster. log_style: that of the process that makes
    the spec. main_code: see `main_code_of`. progress_seconds: between two reports of progress; the more
    workers a run has, the longer.
    """

    build_spec: BuildSpec
    storage: Storage
    fingerprint: str
    run: int
    device: str
    engine_start: int = 0
    distributed_executor_backend: str | None = None
    on_ray: bool = False
    log_style: logs.LogStyle = field(default_factory=logs.current)
    main_code: Mapping[str, Any] = field(default_factory=dict)
    progress_seconds: float = PROGRESS_SECONDS

    def of_start(self, start: EngineStart) -> "WorkerSpec":
        """The spec of one engine start."""
        return replace(self, engine_start=start.engine_start, progress_seconds=start.progress_seconds)

    @property
    def engine_seed(self) -> int:
        """A seed that no other engine start of the build has had."""
        return draws.engine_seed(
            seed=self.build_spec.config.seed_number, run=self.run, start=self.engine_start
        )


def main_code_of(config: JobConfig) -> dict[str, Any]:
    """The user's rules and chat format that lie in the script itself, by name, for workers to take."""
    return code_of_main([*config.own_rules, *filter(None, [config.model.chat_format])])


# Of `score` another one than of jobs whose model writes.
AnyEngine: TypeAlias = Engine | ScoringEngine
EngineFactory = Callable[[WorkerSpec], AnyEngine]
