"""Whether 64 engines make 64 times the rows of one, and what breaks first at 10,000.

The engines have a fixed speed, so any loss is the job's: real Ray actors in the middle of a job, and whole
jobs in virtual time, start and tail included. A third table extends the measured figures to 10,000 GPUs.
"""

import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks.real_fleet import SLOTS, STEP_SECONDS, RealRun, own_ray, run_for
from jobs.benchmarks.result import Cell, Claim, Result, Table
from jobs.benchmarks.virtual_job import VirtualRun, bare_build, run_virtually
from magpie_ray.coordinator.output_sync import LOOK_SHARE
from magpie_ray.dataset import manifest
from magpie_ray.dataset.layout import MANIFEST_KEY
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord

_REAL = (1, 8, 64)
_REAL_SECONDS = 12.0
_VIRTUAL = (1, 2, 4, 8, 16, 32, 64, 256, 1000)
# An 8B model on one GPU: 5,000 tokens/s, rows of 426 tokens as in the paper; five minutes a partition, and
# the least partitions that rows_per_partition: auto gives an actor.
_ROWS_PER_SECOND, _ROWS_PER_PARTITION, _PARTITIONS_EACH = 11.7, 3510, 8
_MEASURED_PARTITIONS = 50_000


def run() -> Result:
    """Measure, then extrapolate."""
    virtual = [_virtually(workers) for workers in _VIRTUAL]
    uneven = [_virtually(workers, uneven=True) for workers in (64, 1000)]
    records = _measure_records()
    with tempfile.TemporaryDirectory(prefix="magpie-benchmark-") as folder, own_ray():
        real = [
            run_for(_REAL_SECONDS, num_actors=actors, output=Path(folder) / str(actors)) for actors in _REAL
        ]
    base, many = virtual[0], next(each for each in virtual if each.workers == 64)
    thousand = virtual[-1]
    return Result(
        name="scaling",
        tables=[
            Table(title="real Ray actors, start and tail left out", rows=list(_real_rows(real))),
            Table(
                title="whole jobs in virtual time, tail included",
                rows=[_virtual_row(each, base, "the same") for each in virtual]
                + [_virtual_row(each, base, "0.9 to 1.1 times") for each in uneven],
            ),
            Table(
                title="on paper: 10,000 GPUs, 10,000,000,000 rows",
                rows=_paper(real[-1], virtual[-1], records),
            ),
        ],
        claims=[
            Claim(
                what="tokens/s of 64 real actors, of 64 times one",
                value=real[-1].tokens_per_second / (64 * real[0].tokens_per_second),
                must_be="at least",
                bound=0.97,
            ),
            Claim(
                what="rows/s of a whole job of 64 virtual workers, of 64 times one",
                value=many.rows_per_second / (64 * base.rows_per_second),
                must_be="at least",
                bound=0.97,
            ),
            Claim(
                what="the same of 1,000",
                value=thousand.rows_per_second / (1000 * base.rows_per_second),
                must_be="at least",
                bound=0.97,
            ),
        ],
        notes=[
            f"A real actor's engine makes {SLOTS} tokens each {STEP_SECONDS:g} s by the clock and sleeps "
            "between: 64 of them take little of two cores. Rows/s follow tokens/s: all rows are drawn alike.",
            "A virtual worker makes rows at a constant rate; Job, Dispatcher, Fleet and Ledger are real. "
            "Its workers start at once; a job spreads the starts of many over two minutes, 5% of this one.",
            "Workers of the same speed end at once. Of uneven ones the fast take from the slow, and the tail "
            "is what the last whole partitions leave, less than one's five minutes however long the job is: "
            "here the share is of the sum of their speeds, over a job of 40 minutes.",
            "On paper: 8B weights in bfloat16 are 16 GB; S3 answers a LIST of 1,000 keys in 0.1 s, one after "
            "the other; a bucket gives 1 Tbit/s. These three are assumed, the rest is measured above.",
        ],
    )


def _speed(slot: int) -> float:
    """0.9 to 1.1, evenly spread and in no order."""
    return 0.9 + 0.2 * (slot * 0.6180339887 % 1.0)


def _virtually(workers: int, *, partitions_each: int = _PARTITIONS_EACH, uneven: bool = False) -> VirtualRun:
    return run_virtually(
        workers=workers,
        rows_per_worker=partitions_each * _ROWS_PER_PARTITION,
        rows_per_partition=_ROWS_PER_PARTITION,
        rows_per_second=_ROWS_PER_SECOND,
        speeds=_speed if uneven else lambda slot: 1.0,
    )


def _real_rows(runs: list[RealRun]) -> Iterator[dict[str, Cell]]:
    for each in runs:
        yield {
            "actors": each.actors,
            "all_up_after_s": each.start_seconds,
            "tokens_per_s": each.tokens_per_second,
            "of_one_times_actors": each.tokens_per_second / (each.actors * runs[0].tokens_per_second),
            "of_the_engines'_speed": each.tokens_per_second * STEP_SECONDS / (each.actors * SLOTS),
            "rows_per_s": each.rows_per_second,
            "driver_cpu": each.cpu_seconds / each.seconds,
        }


def _virtual_row(run: VirtualRun, base: VirtualRun, speeds: str) -> dict[str, Cell]:
    total = sum(_speed(slot) for slot in range(run.workers)) if speeds != "the same" else run.workers
    return {
        "workers": run.workers,
        "speeds": speeds,
        "rows": run.rows,
        "virtual_s": run.seconds,
        "rows_per_s": run.rows_per_second,
        "of_one_times_workers": run.rows_per_second / (total * base.rows_per_second),
        "tail_s": run.seconds - run.rows / (total * _ROWS_PER_SECOND),
        "events_per_partition": run.events / run.partitions,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Records:
    """The cost of one committed partition: bytes in the manifest and in memory, seconds to write and read."""

    manifest_bytes: float
    memory_bytes: float
    write_seconds: float
    read_seconds: float


def _measure_records() -> _Records:
    build = bare_build(_ROWS_PER_PARTITION)
    records = [
        PartitionRecord(
            start=n * _ROWS_PER_PARTITION,
            stop=(n + 1) * _ROWS_PER_PARTITION,
            fingerprint=build.fingerprint,
            run=1,
            size=5_000_000 + n,
            rejected={"empty": 70, "role_marker": 39},
            user_tokens=105_300 + n,
            assistant_tokens=1_389_960 + n,
        )
        for n in range(_MEASURED_PARTITIONS)
    ]
    storage = Storage("memory://scaling")
    began = time.thread_time()
    manifest.write_manifest(storage, build, records, num_rows=records[-1].stop)
    written = time.thread_time()
    manifest.read_manifest(storage)
    read = time.thread_time()
    size = len(storage.read(MANIFEST_KEY))
    tracemalloc.start()
    held = manifest.read_manifest(storage)
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return _Records(
        manifest_bytes=size / len(held),
        memory_bytes=memory / len(held),
        write_seconds=(written - began) / len(held),
        read_seconds=(read - written) / len(held),
    )


def _paper(real: RealRun, thousand: VirtualRun, records: _Records) -> list[dict[str, Cell]]:
    """The parts of a build, the longest first."""
    gpus, rows = 10_000, 10**10
    hours = rows / (gpus * _ROWS_PER_SECOND) / 3600
    partitions = rows / _ROWS_PER_PARTITION
    listing = partitions / 1000 * 0.1
    loading = gpus * 16e9 / 125e9
    event = real.cpu_seconds / real.events
    events = gpus / thousand.workers * thousand.events / thousand.seconds
    return [
        _line(
            "model loading from one bucket",
            f"{gpus:,} x 16 GB over 1 Tbit/s",
            f"{loading / 60:.0f} min before the last engine is up",
            "first: a cache on each node, or images with the weights",
        ),
        _line(
            "listing data/",
            f"{partitions:,.0f} keys, {partitions / 1000:,.0f} LISTs in a row",
            f"{listing / 60:.1f} min a resume, and a look each {LOOK_SHARE * listing / 3600:.0f} h",
            "second: list ranges of keys side by side; larger partitions",
        ),
        _line(
            "driver's events",
            f"{events:.0f}/s x {1000 * event:.2f} ms",
            f"{events * event:.0%} of a core",
            "third: more needs fewer words, or a driver for each few thousand",
        ),
        _line(
            "driver's memory",
            f"{partitions:,.0f} x {records.memory_bytes:.0f} bytes",
            f"{partitions * records.memory_bytes / 1e9:.1f} GB of records",
            "holds on a head node",
        ),
        _line(
            "manifest",
            f"{partitions:,.0f} x {records.manifest_bytes:.0f} bytes",
            f"{partitions * records.manifest_bytes / 1e6:.0f} MB, "
            f"{partitions * records.write_seconds:.0f} s to write, "
            f"{partitions * records.read_seconds:.0f} s to read",
            "holds, rarely written; beyond it in parts",
        ),
        _line(
            "creating actors",
            f"{gpus:,} x {1000 * real.call_seconds / real.actors:.1f} ms",
            f"{gpus * real.call_seconds / real.actors:.0f} s of the driver's thread",
            "holds as far as is known: Ray's own limit was not measured",
        ),
        _line(
            "commits",
            f"{gpus * _ROWS_PER_SECOND / _ROWS_PER_PARTITION:.0f} PUTs/s",
            "1% of the 3,500 a second that S3 takes for a prefix",
            "holds",
        ),
        _line("the whole build", f"{gpus * _ROWS_PER_SECOND:,.0f} rows/s", f"{hours:.0f} h", ""),
    ]


def _line(what: str, reckoned: str, figure: str, verdict: str) -> dict[str, Cell]:
    return {"what": what, "reckoned": reckoned, "figure": figure, "verdict": verdict}
