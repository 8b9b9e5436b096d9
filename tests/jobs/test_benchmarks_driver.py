"""What no machine changes of the driver's figures: requests, decisions, events, bytes. No timings."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.benchmarks import resume as resuming
from jobs.benchmarks.resume import GRID, make_build, resume
from jobs.benchmarks.virtual_job import run_virtually
from magpie_ray.config.loading import parse_config
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.layout import MANIFEST_KEY
from magpie_ray.engine.simulated.engine import SimulatedEngine
from magpie_ray.generation.recipe import Recipe
from magpie_ray.types import Partition
from magpie_ray.worker.parts import make_recipe
from magpie_ray.worker.spec import WorkerSpec
from magpie_ray.worker.worker import ShardWorker
from tests.support.builds import memory_storage
from tests.support.engines import FIGURES
from tests.support.specs import open_worker_spec


def test_a_resume_lists_once_reads_the_manifest_once_and_only_footers_that_are_newer() -> None:
    output = memory_storage().url
    make_build(output, known=300, newer=7)
    found = resume(output, num_rows=400 * GRID, num_workers=10)
    assert found["calls"] == {"list": 1, "read": 1, "read_tail": 7}
    assert (found["committed"], found["pending"], found["first_given"]) == (307, 93, True)


def test_what_a_partition_takes_in_the_manifest_stays_small() -> None:
    output = memory_storage().url
    make_build(output, known=1000, newer=0)
    raw = resuming.Storage(output).read(MANIFEST_KEY)
    assert len(json.loads(raw)["partitions"]) == 1000
    assert len(raw) / 1000 < 170, "bytes; the hash of a file, which these have not, adds 62"


@pytest.mark.parametrize("workers", [1, 7, 64, 1000])
def test_shards_differ_by_one_partition_at_most(workers: int) -> None:
    shards = partitioning.shards(partitioning.pending(10_000_000, 1250, []), workers)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


def test_every_worker_has_a_full_window_after_its_first_word() -> None:
    dispatcher = Dispatcher(
        partitioning.pending(1_000_000, 100, []), num_slots=100, grid=100, max_failures_per_partition=3
    )
    given = [
        dispatcher.progress(slot, started=0, finished=0, live_window=768, now=0.0) for slot in range(100)
    ]
    assert {len(partitions) for partitions in given} == {8}


def test_a_thousand_workers_send_fewer_than_fifty_events_a_second_and_share_the_work_evenly() -> None:
    run = run_virtually(
        workers=1000, rows_per_worker=4 * 351, rows_per_partition=351, rows_per_second=1.17, window=77
    )
    assert run.given == run.partitions == 4000, "decisions: each partition is given once"
    assert run.events / run.seconds < 50
    assert run.events / run.partitions < 15
    assert run.rows_most == run.rows_least == 4 * 351


@pytest.mark.parametrize("workers", [2, 64, 1000])
def test_many_workers_are_as_fast_as_one_times_their_number(workers: int) -> None:
    one, many = (
        run_virtually(
            workers=number, rows_per_worker=8 * 351, rows_per_partition=351, rows_per_second=1.17, window=77
        )
        for number in (1, workers)
    )
    assert many.rows_per_second / one.rows_per_second >= 0.97 * workers
    assert many.given == 8 * workers


def test_the_tail_of_uneven_workers_is_shorter_than_a_partition() -> None:
    run = run_virtually(
        workers=50,
        rows_per_worker=8 * 351,
        rows_per_partition=351,
        rows_per_second=1.17,
        window=77,
        speeds=lambda slot: 0.9 + 0.2 * slot / 49,
    )
    assert run.seconds < 8 * 300 + 300
    assert run.rows_least < run.rows_most, "the fast have taken from the slow"


@pytest.mark.slow  # imports Ray
def test_the_rows_of_a_real_fleet_are_made_without_a_tokenizer_of_a_model(tmp_path: Path) -> None:
    from jobs.benchmarks.real_fleet import FixedSpeed, IdsAsText

    class BareWorker(ShardWorker):
        def make_recipe(self, spec: WorkerSpec) -> Recipe:
            return make_recipe(spec, IdsAsText())

    spec = open_worker_spec(parse_config({"num_rows": 8, "output": {"path": str(tmp_path)}}), grid=8)
    engine = SimulatedEngine(FixedSpeed().replies(spec), figures=FIGURES)
    worker = BareWorker(spec, lambda _: engine)
    partition = Partition(start=0, stop=8)
    worker.give(partition)
    worker.finish()
    list(worker.run())
    rows = pq.read_table(tmp_path / partition.key).to_pylist()
    said = [message["content"] for row in rows for message in row["conversation"]]
    assert len(rows) == 8
    assert all(word.isdecimal() for text in said for word in text.split())
