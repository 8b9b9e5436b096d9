"""The cost of the driver: with real actors on this machine, and with thousands of virtual ones.

Measured apart: Ray's cost of an event (100 real actors with engines of a fixed speed), the cost of handling
it in this project's own logic (1,000 and 10,000 workers in virtual time), and a resume of a build of 100,000
partitions, stage by stage.
"""

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import ray

from jobs.benchmarks import resume as resuming
from jobs.benchmarks.real_fleet import RealRun, own_ray, run_for
from jobs.benchmarks.result import Cell, Claim, Result, Table
from jobs.benchmarks.virtual_job import VirtualRun, run_virtually
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.output_sync import LOOK_SHARE
from magpie_ray.dataset import partitioning

ACTORS = 100
_REAL_SECONDS = 12.0
# An 8B model on one GPU: 5,000 tokens/s, rows of 426 tokens as in the paper; five minutes a partition.
_ROWS_PER_SECOND, _ROWS_PER_PARTITION = 11.7, 3510
_KNOWN, _NEWER = 100_000, 100
_POLLS_PER_SECOND = 2.0


def run() -> Result:
    """Measure all of it."""
    with tempfile.TemporaryDirectory(prefix="magpie-benchmark-") as folder:
        resumed = _resumes(Path(folder) / "build")
    with tempfile.TemporaryDirectory(prefix="magpie-benchmark-") as folder, own_ray():
        waits = {number: _wait_milliseconds(number) for number in (100, 1000)}
        real = run_for(_REAL_SECONDS, num_actors=ACTORS, output=Path(folder) / "build")
    virtual = [
        _virtually(1000, partitions_each=4),
        _virtually(1000, every=2.0, stop_after=60.0),
        _virtually(10_000, stop_after=100.0),
    ]
    share = _share_at_1000(real, virtual[0], waits)
    return Result(
        name="driver",
        tables=[
            Table(title=f"{ACTORS} real actors, engines of a fixed speed", rows=[_real_row(real)]),
            Table(
                title="the driver's own logic, workers in virtual time",
                rows=[_virtual_row(r) for r in virtual],
            ),
            Table(title="planning alone: 10,000,000 rows", rows=[_assign_row(n) for n in (1000, 10_000)]),
            Table(
                title=f"resume: {_KNOWN:,} partitions, {_NEWER} newer, 10,000,000 rows to go, 1,000 actors",
                rows=[stage for found in resumed for stage in _stage_rows(found)],
            ),
        ],
        claims=[*_resume_claims(*resumed[:2]), *_claims_at_work(real, share)],
        notes=_notes(real, virtual[0], waits, share),
    )


def _resume_claims(plain: dict[str, Any], with_torch: dict[str, Any]) -> list[Claim]:
    return [
        Claim(
            what="resume and plan, whole process: s",
            value=plain["wall_seconds"],
            must_be="at most",
            bound=10,
        ),
        Claim(what="resume and plan, whole process: MB", value=_peak(plain), must_be="at most", bound=500),
        Claim(
            what="the same where torch is installed: s",
            value=with_torch["wall_seconds"],
            must_be="at most",
            bound=10,
            why=_why_torch(plain, with_torch),
        ),
        Claim(
            what="the same where torch is installed: MB",
            value=_peak(with_torch),
            must_be="at most",
            bound=500,
            why=_why_torch(plain, with_torch),
        ),
        Claim(
            what="requests for what is committed, beside one for each newer file",
            value=sum(plain["calls"].values()) - _NEWER,
            must_be="at most",
            bound=2,
        ),
    ]


def _claims_at_work(real: RealRun, share: float) -> list[Claim]:
    return [
        Claim(
            what="driver at 1,000 actors: share of a core",
            value=share,
            must_be="at most",
            bound=0.05,
            why=f"Ray took {1000 * real.cpu_seconds / real.events:.2f} ms of a core an event here",
        ),
        Claim(
            what=f"asking for {ACTORS} actors, of the time until all are up side by side",
            value=real.call_seconds / real.start_seconds,
            must_be="at most",
            bound=0.05,
        ),
    ]


def _resumes(output: Path) -> list[dict[str, Any]]:
    resuming.make_build(str(output), known=_KNOWN, newer=_NEWER)
    num_rows = resuming.GRID * _KNOWN + 10_000_000
    return [
        {"torch": "installed" if torch else "none"}
        | resuming.resume_in_own_process(str(output), num_rows=num_rows, num_workers=1000, with_torch=torch)
        for torch in (False, True)
    ]


def _peak(found: dict[str, Any]) -> float:
    return float(found["stages"][-1]["peak_mb"])


def _why_torch(plain: dict[str, Any], with_torch: dict[str, Any]) -> str:
    seconds = with_torch["stages"][0]["seconds"] - plain["stages"][0]["seconds"]
    megabytes = with_torch["stages"][0]["peak_mb"] - plain["stages"][0]["peak_mb"]
    return f"transformers imports torch with the tokenizer: {seconds:.1f} s and {megabytes:.0f} MB of it"


def _stage_rows(found: dict[str, Any]) -> list[dict[str, Cell]]:
    whole = found["wall_seconds"]
    rest = whole - sum(stage["seconds"] for stage in found["stages"])
    calls = " ".join(f"{kind} {number}" for kind, number in found["calls"].items())
    told = {"what is committed": calls}
    stages = [{"stage": "Python, Ray and this package are imported", "seconds": rest}, *found["stages"]]
    stages.append({"stage": "all", "seconds": whole, "peak_mb": _peak(found)})
    return [
        {
            "torch": found["torch"],
            "stage": stage["stage"],
            "seconds": stage["seconds"],
            "peak_mb": stage.get("peak_mb"),
            "storage_calls": told.get(stage["stage"], ""),
        }
        for stage in stages
    ]


class _Silent:
    """An actor whose many streams yield one event each and then nothing."""

    def run(self) -> Any:
        yield 0
        time.sleep(1e6)


def _wait_milliseconds(streams: int, *, processes: int = 2) -> float:
    """Milliseconds that this thread takes to ask Ray for events of `streams` actors when there are none."""
    each = streams // processes
    actors = [ray.remote(num_cpus=0, max_concurrency=each + 1)(_Silent).remote() for _ in range(processes)]
    events = [actor.run.options(num_returns="streaming").remote() for actor in actors for _ in range(each)]
    for stream in events:
        ray.get(next(stream))
    times, began = 50, time.thread_time()
    for _ in range(times):
        ray.wait(events, num_returns=len(events), timeout=0)
    taken = time.thread_time() - began
    for actor in actors:
        ray.kill(actor)
    return 1000 * taken / times


def _real_row(real: RealRun) -> dict[str, Cell]:
    return {
        "actors": real.actors,
        "asked_for_in_s": real.call_seconds,
        "all_up_after_s": real.start_seconds,
        "measured_s": real.seconds,
        "events_per_s": real.events / real.seconds,
        "driver_cpu": real.cpu_seconds / real.seconds,
        "of_it_the_job's_thread": real.loop_cpu_seconds / real.seconds,
        "ms_per_event": 1000 * real.cpu_seconds / real.events,
        "driver_MiB": real.driver_mib,
        "MiB_per_actor": real.actor_mib,
    }


def _virtually(
    workers: int, *, partitions_each: int = 2, every: float | None = None, stop_after: float = math.inf
) -> VirtualRun:
    return run_virtually(
        workers=workers,
        rows_per_worker=partitions_each * _ROWS_PER_PARTITION,
        rows_per_partition=_ROWS_PER_PARTITION,
        rows_per_second=_ROWS_PER_SECOND,
        every=every,
        stop_after=stop_after,
    )


def _virtual_row(virtual: VirtualRun) -> dict[str, Cell]:
    return {
        "workers": virtual.workers,
        "words_every_s": virtual.every,
        "virtual_s": virtual.seconds,
        "events_per_virtual_s": virtual.events / virtual.seconds,
        "events_handled_per_s_of_a_core": virtual.events / virtual.driver_cpu_seconds,
        "us_per_event": 1e6 * virtual.driver_cpu_seconds / virtual.events,
        "ms_per_partition_given": 1000 * virtual.driver_cpu_seconds / virtual.given,
        "share_of_a_core": virtual.driver_cpu_seconds / virtual.seconds,
    }


def _assign_row(workers: int) -> dict[str, Cell]:
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    pending = partitioning.pending(10_000_000, resuming.GRID, [])
    planned = time.perf_counter()
    dispatcher = Dispatcher(pending, num_slots=workers, grid=resuming.GRID, max_failures_per_partition=3)
    sharded = time.perf_counter()
    for slot in range(workers):
        dispatcher.progress(slot, started=0, finished=0, live_window=768, now=0.0)
    given = time.perf_counter()
    return {
        "workers": workers,
        "partitions": len(pending),
        "cut_ms": 1000 * (planned - began),
        "in_shards_ms": 1000 * (sharded - planned),
        "first_partitions_to_all_ms": 1000 * (given - sharded),
        "more_MiB": (psutil.Process().memory_info().rss - before) / 2**20,
    }


def _share_at_1000(real: RealRun, virtual: VirtualRun, waits: dict[int, float]) -> float:
    """The share of a core: 1,000 actors' events at the cost of an event of 100, and longer waits on Ray."""
    events = virtual.events / virtual.seconds * real.cpu_seconds / real.events
    longer = _POLLS_PER_SECOND * (waits[1000] - waits[100]) / 1000
    return events + longer + 1 / LOOK_SHARE


def _notes(real: RealRun, virtual: VirtualRun, waits: dict[int, float], share: float) -> list[str]:
    each = 1000 * real.cpu_seconds / real.events
    own = 1e6 * virtual.driver_cpu_seconds / virtual.events
    rays = 1 - own / (1000 * each)
    return [
        "Driver at 1,000 actors = events/s x ms/event + polls/s x what asking 1,000 instead of 100 adds + "
        f"the ledger's bound = {virtual.events / virtual.seconds:.1f}/s x {each:.2f} ms + "
        f"{_POLLS_PER_SECOND:g}/s x ({waits[1000]:.2f} - {waits[100]:.2f}) ms + 1/{LOOK_SHARE:g} = "
        f"{share:.1%} of a core.",
        f"ms/event: CPU of the whole driver process with {real.actors} real actors, Ray's threads and the "
        f"commands back to the actors included. This project's logic is {own:.0f} us of it, Ray {rays:.0%}.",
        f"At one word each 2 s, as up to 40 actors send them, 1,000 actors would cost "
        f"{500 * each / 1000:.0%} of a core, nearly all of it Ray's: so all together get 20 words a second "
        f"(each one in {virtual.every:g} s at 1,000), sooner when rows run short, at once when they have "
        "run out.",
        f"Actors start side by side, here {real.actors} processes on two cores: {real.start_seconds:.0f} s.",
        "Of the actors' process one thing is left out: the tokenizer, which imports transformers and torch.",
    ]
