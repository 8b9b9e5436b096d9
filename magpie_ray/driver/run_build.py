"""`generate` and the passes, the program's story: look, settle, open, work.

Look: find the build's output and what is committed there (preflight.target). Settle: return at once where no
engine is needed, because the build is left alone or complete. Open: connect to a cluster that can hold its
actors, then create the build or join it. Work: wire the parts of a run (wiring) and let the coordinator carry
it out.

Invariants: no build is created before a cluster has been found that can hold an actor; however a run ends,
committed files stay and the run's record says how it ended.
"""

import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.fields import Section
from magpie_ray.config.loading import JobConfig, job_of, load_as, parse_as
from magpie_ray.config.schema import Config
from magpie_ray.config.score import ScoreConfig
from magpie_ray.coordinator.notice import SLACK_SECONDS, Notice
from magpie_ray.coordinator.placement import choose_num_actors, place
from magpie_ray.coordinator.run import BuildResult, carry_out, nothing_to_do
from magpie_ray.dataset import run_records, schedule
from magpie_ray.driver.cluster_watch import GONE_SECONDS, ClusterWatch
from magpie_ray.driver.connect import ray_session, stop_signals
from magpie_ray.driver.ray_metrics import RayMetrics
from magpie_ray.driver.wiring import make_job
from magpie_ray.errors import ConfigError, MagpieError
from magpie_ray.monitoring.heartbeat import Heartbeat
from magpie_ray.monitoring.progress import ProgressDisplay
from magpie_ray.preflight import checks
from magpie_ray.preflight.companions import write_companions
from magpie_ray.preflight.existing import read_existing
from magpie_ray.preflight.if_exists import exists_error, reason_to_leave
from magpie_ray.preflight.target import (
    Output,
    Target,
    find_output,
    find_target,
    open_build,
)
from magpie_ray.types import IfExists
from magpie_ray.utils import logs
from magpie_ray.utils.limits import limits_told
from magpie_ray.utils.process_end import allowing
from magpie_ray.worker.spec import EngineFactory

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """When a silent cluster counts as gone, and how often the log says how the run stands."""

    cluster_gone_seconds: float = GONE_SECONDS
    log_seconds: float = 30.0


_USUAL = Timing()
_J = TypeVar("_J", bound=Section)


Asked = Mapping[str, object] | str | os.PathLike[str]


def generate(
    config: Config | Asked,
    *,
    if_exists: IfExists = "resume",
    engine_factory: EngineFactory | None = None,
    timing: Timing = _USUAL,
) -> BuildResult:
    """Run, or resume, the build that `config` describes, on the Ray cluster at hand.

    config: a Config, the path of a YAML file, or a mapping such as the file holds.
    if_exists: what to do about an existing build: resume it, skip it when it is complete or another run works
    on it, or fail. Returns when the build is complete or skipped. Raises MagpieError: ConfigError,
    ModelError, FormatError and PreflightError before anything costly starts, InterruptedJobError on a signal,
    GenerationFailedError, RowExhaustedError or ClusterLostError when the job gives up. Committed files stay,
    and the same call resumes the build.
    """
    asked = config if isinstance(config, Config) else _loaded(Config, config)
    return run_job(asked, if_exists=if_exists, engine_factory=engine_factory, timing=timing)


def answer(
    config: AnswerConfig | Asked,
    *,
    if_exists: IfExists = "resume",
    engine_factory: EngineFactory | None = None,
    timing: Timing = _USUAL,
) -> BuildResult:
    """Run, or resume, a pass that answers the rows of a source; as `generate` in all else."""
    asked = config if isinstance(config, AnswerConfig) else _loaded(AnswerConfig, config)
    return run_job(asked, if_exists=if_exists, engine_factory=engine_factory, timing=timing)


def score(
    config: ScoreConfig | Asked,
    *,
    if_exists: IfExists = "resume",
    engine_factory: EngineFactory | None = None,
    timing: Timing = _USUAL,
) -> BuildResult:
    """Run, or resume, a pass that scores the rows of a source; as `generate` in all else."""
    asked = config if isinstance(config, ScoreConfig) else _loaded(ScoreConfig, config)
    return run_job(asked, if_exists=if_exists, engine_factory=engine_factory, timing=timing)


def _loaded(kind: type[_J], config: JobConfig | Asked) -> _J:
    if isinstance(config, Section):
        raise ConfigError(f"this is a config of `{job_of(config)}`: pass it to magpie_ray.{job_of(config)}")
    return parse_as(kind, config) if isinstance(config, Mapping) else load_as(kind, os.fspath(config))


def run_job(
    config: JobConfig,
    *,
    if_exists: IfExists = "resume",
    engine_factory: EngineFactory | None = None,
    timing: Timing = _USUAL,
) -> BuildResult:
    """Run, or resume, any job: what `generate` and the passes have in common."""
    with logs.told_in_notebook():
        return _run_job(config, if_exists, engine_factory, timing)


def _run_job(
    config: JobConfig, if_exists: IfExists, engine_factory: EngineFactory | None, timing: Timing
) -> BuildResult:
    began = time.monotonic()
    checks.check_output_outlives_job(config.output.path)
    output = find_output(config, claim=True)
    checks.check_output_is_shared(output.storage)
    if output.tick:
        log.info("output.path is %s", output.storage.url)
    try:
        with limits_told():
            result = _settle(output, if_exists, engine_factory, timing)
    except MagpieError:
        if setting := schedule.resume_override(config, output.tick):
            log.warning("the same command begins another build: add %s to resume this one", setting)
        raise
    if not result.left_alone:
        schedule.update_latest(output.config, output.storage)
    return replace(result, wall_seconds=time.monotonic() - began)


def _settle(
    output: Output, if_exists: IfExists, engine_factory: EngineFactory | None, timing: Timing
) -> BuildResult:
    """Look at the output, and settle what needs no engine; open and work for the rest."""
    existing = read_existing(output.reader)
    if existing and (reason := reason_to_leave(output.reader, if_exists)):
        # The command may ask for as many rows as there are inputs, which nobody has counted.
        runs = run_records.read_runs(output.reader)
        num_rows = runs[-1].num_rows if runs else output.config.num_rows
        return BuildResult(url=output.storage.url, job=existing.job, num_rows=num_rows, left_alone=reason)
    first = "" if isinstance(output.config, Config) else "the source, then "
    log.info("reading %sthe tokenizer of %s", first, output.config.model.name)
    target = find_target(output, existing)
    for warning in target.build_spec.warnings:
        log.warning("%s", warning)
    if target.committed and not target.committed.pending:
        return nothing_to_do(target.build_spec, target.storage, target.committed)
    return _run(target, if_exists, engine_factory, timing)


def _run(
    target: Target, if_exists: IfExists, engine_factory: EngineFactory | None, timing: Timing
) -> BuildResult:
    """Open the build on a cluster, and work until it is complete."""
    build_spec, config = target.build_spec, target.build_spec.config
    storage = checks.check_output(target.storage, single_writer=config.output.single_writer)
    notice = Notice(config.cluster.notice_seconds, storage)
    seconds_left = partial(notice.left, 1.0, most=math.inf)
    with (
        ray_session(config.cluster.address, seconds_left=seconds_left) as is_local,
        allowing(notice.seconds + SLACK_SECONDS),
        stop_signals(notice.begin) as stop_requested,
        ClusterWatch(may_grow=not is_local, gone_seconds=timing.cluster_gone_seconds) as watch,
    ):
        log.info("running on %s Ray cluster %s", "a local" if is_local else "the", watch)
        if not is_local:
            checks.warn_of_local_output(storage, nodes=len(watch.view.alive))
        elif engine_factory is None:
            checks.check_engine_is_installed()

        # Open: an actor must fit the cluster before the build is created.
        resources = watch.view.resources
        placement = place(config, resources)
        num_actors = choose_num_actors(config, placement, resources)
        committed = target.committed
        if committed is None:
            build_spec, committed, is_new = open_build(
                build_spec, storage, num_actors=num_actors, device=placement.device
            )
            config = build_spec.config
            if not is_new and if_exists == "fail":
                raise exists_error(storage)
            if not is_new and if_exists == "skip":
                reason = "another run has just begun it"
                return BuildResult(
                    url=storage.url, job=job_of(config), num_rows=config.num_rows, left_alone=reason
                )
        if not committed.pending:  # another driver was quicker
            return nothing_to_do(build_spec, storage, committed)

        # Work.
        write_companions(build_spec, storage, stop_requested=stop_requested)
        host = socket.gethostname()
        run = run_records.start_run(storage, num_rows=config.num_rows, host=host, config=config.recorded())
        make_this_job = partial(
            make_job,
            build_spec=build_spec,
            storage=storage,
            committed=committed,
            run=run,
            watch=watch,
            placement=placement,
            num_actors=num_actors,
            engine_factory=engine_factory,
            notice=notice,
        )
        with (
            ProgressDisplay(live=not logs.current().json, log_seconds=timing.log_seconds) as display,
            RayMetrics(build=storage.url, run=run.number) as metrics,
            Heartbeat(storage, run) as heartbeat,
        ):
            watchers = [display, metrics, heartbeat]
            return carry_out(make_this_job, run, storage, committed.build, stop_requested, watchers)
