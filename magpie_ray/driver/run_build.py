"""The driver: preflight, place actors, watch them, finish the build. The only package that imports ray.

A thin shell: what is decided is decided in build_spec, preflight, placement, dispatch and job; here it is
carried out on Ray. What always holds: whatever ends a run, what is committed stays and its record says how it
ended.
The parts: cluster (which one), watch (what it has, whether it is still there), assembly (a run's parts, put
together), actors (its workers), process (what runs in each), actor_logs (why one died), metrics (what
Prometheus is told), and sample (a build tried for a while).
"""

import logging
import socket

from magpie_ray.config.output_path import Tick
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.placement import Placement, choose_device, choose_num_actors, place
from magpie_ray.coordinator.run import BuildResult, carry_out, left_alone, nothing_to_do, open_build
from magpie_ray.coordinator.snapshot import Watchers
from magpie_ray.dataset import manifest, run_records, schedule
from magpie_ray.dataset import schedule as latest
from magpie_ray.driver import connect
from magpie_ray.driver.cluster_watch import ClusterView, ClusterWatch
from magpie_ray.driver.ray_metrics import RayMetrics
from magpie_ray.driver.stop_signals import stop_signals
from magpie_ray.driver.wiring import Assembly
from magpie_ray.errors import MagpieError
from magpie_ray.monitoring.heartbeat import Heartbeat
from magpie_ray.monitoring.progress import ProgressDisplay
from magpie_ray.preflight import checks
from magpie_ray.preflight.build_spec import BuildSpec, resolve_build
from magpie_ray.preflight.if_exists import IfExists, exists, reason_to_leave
from magpie_ray.storage.storage import READ_SECONDS, Storage
from magpie_ray.utils import logs
from magpie_ray.worker.spec import EngineFactory

log = logging.getLogger(__name__)


def generate(
    config: Config, *, if_exists: IfExists = "resume", engine_factory: EngineFactory | None = None
) -> BuildResult:
    """Run, or resume, the build that `config` describes, on the Ray cluster at hand.

    if_exists: what to do about a build that is there: go on with it, leave it alone when it is complete or
    worked on, refuse. Returns when the build is complete, or left alone. Raises MagpieError: ConfigError,
    FormatError and PreflightError before anything costly starts, InterruptedJobError on SIGINT or SIGTERM,
    GenerationFailedError, RowExhaustedError or ClusterLostError when the job gives up. What is committed
    stays; the same call resumes.
    """
    resolved, tick = schedule.resolve(config)
    storage = checks.open_output(resolved)
    checks.check_output_is_shared(storage)
    goes_on = schedule.goes_on_with(config, tick)
    if tick:
        log.info("output.path is %s", storage.url)
    try:
        result = _generate(resolved, tick, storage, if_exists, engine_factory)
    except MagpieError:
        if goes_on:
            log.warning("the same command begins another build: add %s to go on with this one", goes_on)
        raise
    if not result.left_alone:
        latest.publish(resolved, storage)
    return result


def _generate(
    config: Config,
    tick: Tick | None,
    storage: Storage,
    if_exists: IfExists,
    engine_factory: EngineFactory | None,
) -> BuildResult:
    """The same for one build."""
    reading = storage.retrying_for(READ_SECONDS)
    existing = checks.read_existing(reading)
    if existing and (reason := reason_to_leave(reading, if_exists)):
        return left_alone(storage, config.num_rows, reason)
    build_spec = resolve_build(config, existing, tick=tick)
    for warning in build_spec.warnings:
        log.warning("%s", warning)
    config = build_spec.config
    committed = checks.check_existing(build_spec, existing, reading) if existing else None
    if committed and not committed.pending(config.num_rows):
        return nothing_to_do(build_spec, storage, committed)
    storage = checks.check_output(storage, single_writer=config.output.single_writer)
    with (
        connect.ray_session(config) as local,
        stop_signals() as stop_requested,
        ClusterWatch(may_grow=not local) as watch,
    ):
        log.info("running on %s Ray cluster %s", "a local" if local else "the", watch)
        if local and engine_factory is None:
            checks.check_engine_is_installed()
        if not local:
            checks.warn_of_local_output(build_spec, storage, nodes=len(watch.view.alive))
        placement, num_actors = _choose_actors(build_spec, watch.view)
        if committed is None:
            record, is_new = open_build(build_spec, storage, device=placement.device, num_actors=num_actors)
            if not is_new and if_exists == "fail":
                raise exists(storage)
            if not is_new and if_exists == "skip":
                return left_alone(storage, config.num_rows, "another run has just begun it")
            committed = checks.check_existing(build_spec, record, storage)
        if not committed.pending(config.num_rows):  # another driver was quicker
            return nothing_to_do(build_spec, storage, committed)
        manifest.mark_growing(storage)
        host = socket.gethostname()
        run = run_records.start_run(storage, num_rows=config.num_rows, host=host, config=config.recorded())
        assembly = Assembly(
            build_spec=build_spec,
            storage=storage,
            committed=committed,
            run=run,
            watch=watch,
            placement=placement,
            num_actors=num_actors,
            engine_factory=engine_factory,
        )
        with (
            ProgressDisplay(live=not logs.current().json) as display,
            RayMetrics(build=storage.url, run=run.number) as metrics,
            Heartbeat(storage, run) as heartbeat,
        ):
            watchers = Watchers([display, metrics, heartbeat])
            return carry_out(assembly.make_job, run, storage, committed.build, stop_requested, watchers)


def _choose_actors(build_spec: BuildSpec, view: ClusterView) -> tuple[Placement, int]:
    """What an actor takes on this cluster, and how many there are to be. PreflightError if it holds none."""
    config, resources = build_spec.config, view.resources
    device = choose_device(config, resources)
    if device == "cpu" and config.engine.device == "auto":
        log.warning("the cluster has no GPU: engines run on CPUs (engine.device: auto)")
    checks.check_engine_device(build_spec, device=device)
    placement = place(config, device=device, resources=resources)
    return placement, choose_num_actors(config, placement=placement, resources=resources)
