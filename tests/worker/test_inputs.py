"""A worker whose rows have inputs: they start once these are loaded, and carry them into their files."""

import pickle
import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.config.loading import parse_config
from magpie_ray.engine.protocol import Request
from magpie_ray.engine.simulated.engine import Answer
from magpie_ray.errors import PreflightError, StorageError
from magpie_ray.generation.recipe import Start
from magpie_ray.model.tokenizer import load_tokenizer
from magpie_ray.preflight.inputs import copy_inputs
from magpie_ray.types import Input, Partition
from magpie_ray.worker.events import Committed, Progress
from magpie_ray.worker.input_feed import InputFeed
from magpie_ray.worker.spec import WorkerSpec
from magpie_ray.worker.worker import ShardWorker
from tests.support.engines import ScriptedEngine
from tests.support.inputs import write_table
from tests.support.specs import open_worker_spec
from tests.worker.test_worker import Replies, run

PEOPLE = [
    {"system_prompt": f"You talk to person {i}." if i % 4 else "", "topic": f"t{i}", "age": 20 + i}
    for i in range(150)
]


def spec_of(folder: Path, rows: Any = PEOPLE, name: str = "people.parquet", **keys: Any) -> WorkerSpec:
    """The spec of a build with inputs that is open."""
    inputs = {"path": str(write_table(folder / name, rows)), "keep": ["topic", "age"]} | keys.pop(
        "inputs", {}
    )
    output = {"path": str(folder / "out")}
    config = parse_config({"inputs": inputs, "output": output, "acceptance": {"max_attempts": 100}} | keys)
    spec = open_worker_spec(config, grid=64)
    assert spec.build_spec.inputs
    copy_inputs(spec.build_spec.config, spec.build_spec.inputs, spec.storage)
    return spec


def table_of(spec: WorkerSpec, *partitions: Partition) -> pa.Table:
    return pa.concat_tables(pq.read_table(pa.BufferReader(spec.storage.read(p.key))) for p in partitions)


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("name", ["people.parquet", "people.jsonl", "people.csv"])
def test_rows_have_their_inputs_in_their_columns_and_in_front_of_their_messages(
    tmp_path: Path, name: str, turns: int
) -> None:
    spec = spec_of(tmp_path, name=name, n_turns=turns, num_rows=192)
    prefixes = dict[str, int]()
    tokenizer = load_tokenizer(spec.build_spec.model.location).tokenizer
    words = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in ("one", "two", "six", "ten")]

    def respond(request: Request) -> Answer:
        text = tokenizer.decode(request.prompt_token_ids)
        prefixes[text.partition("user<|end_header_id|>")[0]] = request.request_id
        draw = random.Random(request.request_id)
        return [token for word in draw.choices(words, k=draw.randint(4, 12)) for token in word], "stop"

    partitions = [Partition(start=n, stop=n + 64) for n in (0, 64, 128)]
    events = list(run(ShardWorker(spec, Replies(respond)), *partitions))
    assert len([event for event in events if isinstance(event, Committed)]) == 3
    table = table_of(spec, *partitions)
    assert table.schema.equals(spec.build_spec.record(64).schema)
    assert table.column_names[-2:] == ["topic", "age"]
    for row_id, row in enumerate(table.to_pylist()):
        person = PEOPLE[row_id % len(PEOPLE)]
        assert (row["row_id"], row["input_id"]) == (row_id, row_id % len(PEOPLE))
        assert row["system_prompt"] == (person["system_prompt"] or None)
        assert (row["topic"], row["age"]) == (person["topic"], person["age"])
    whole = "".join(prefixes)
    assert all(person["system_prompt"] in whole for person in PEOPLE)
    assert "multi-round conversation" not in whole


def test_rejected_rows_are_tried_again_with_their_own_inputs(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, inputs={"pick": "at_random"}, num_rows=128)
    partitions = [Partition(start=n, stop=n + 64) for n in (0, 64)]
    list(run(ShardWorker(spec, ScriptedEngine(reject_every=3)), *partitions))
    table = table_of(spec, *partitions)
    assert max(table.column("attempt").to_pylist()) > 1
    for row in table.to_pylist():
        assert row["topic"] == f"t{row['input_id']}"


def test_a_worker_that_is_stopped_commits_the_heads_of_rows_with_inputs(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    worker = ShardWorker(spec, ScriptedEngine())

    def act(event: object) -> None:
        if isinstance(event, Progress) and event.tally.rows:
            worker.stop()

    worker.give(Partition(start=0, stop=150))
    for event in worker.run():
        act(event)
    keys = [item.key for item in spec.storage.list_objects("data")]
    assert keys in ([], [Partition(start=0, stop=1).key])


def test_a_dropped_partition_with_inputs_leaves_the_others(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    worker = ShardWorker(spec, ScriptedEngine())
    first, second = Partition(start=0, stop=64), Partition(start=64, stop=128)
    worker.give(first)
    worker.give(second)
    worker.drop(first)
    worker.finish()
    list(worker.run())
    assert [item.key for item in spec.storage.list_objects("data")] == [second.key]


def test_the_spec_of_a_worker_does_not_grow_with_the_inputs(tmp_path: Path) -> None:
    few, many = (
        len(pickle.dumps(spec_of(tmp_path / str(number), [*PEOPLE] * number, num_rows=10)))
        for number in (1, 40)
    )
    assert many < few + 200


def test_a_node_that_sees_no_copy_of_the_inputs_is_told_so(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    spec.storage.delete("_magpie/inputs/blocks.json")
    with pytest.raises(PreflightError, match="has no copy of the build's inputs"):
        list(run(ShardWorker(spec, ScriptedEngine()), Partition(start=0, stop=64)))


def test_inputs_that_cannot_be_read_end_a_worker_after_what_is_finished(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    for item in spec.storage.list_objects("_magpie/inputs"):
        if item.key.endswith(".blocks"):
            spec.storage.delete(item.key)
    with pytest.raises(StorageError, match=r"_magpie/inputs/0{12}-"):
        list(run(ShardWorker(spec, ScriptedEngine()), Partition(start=0, stop=64)))


class SlowLoader:
    """Loads when it is told to."""

    def __init__(self) -> None:
        self.asked = list[list[int]]()
        self.free = threading.Semaphore(0)
        self.error: Exception | None = None

    def load(self, rows: Sequence[int]) -> list[Start]:
        self.asked.append(list(rows))
        assert self.free.acquire(timeout=30)
        if self.error:
            raise self.error
        return [Start(None, (1,), input=Input(input_id=row)) for row in rows]

    def characters(self, start: Start) -> int:
        return len(start.prefix)

    def close(self) -> None:
        self.free.release(100)


def feed_of(loader: SlowLoader) -> tuple[InputFeed[Start], threading.Semaphore]:
    loaded = threading.Semaphore(0)
    feed = InputFeed(loader, number=9, on_loaded=loaded.release)
    return feed, loaded


def test_a_feed_hands_rows_over_in_order_and_loads_no_further_ahead_than_asked() -> None:
    loader = SlowLoader()
    feed, loaded = feed_of(loader)
    feed.open(range(300), ahead=64)
    assert (feed.take(10), feed.waiting, feed.has_some) == ([], 300, False)
    loader.free.release()
    assert loaded.acquire(timeout=30)
    assert feed.take(10) == list(range(10))
    assert feed.waiting == 290
    loader.free.release(100)
    assert loaded.acquire(timeout=30)
    taken = list(range(10))
    while len(taken) < 300:
        taken += feed.take(7)
    assert taken == list(range(300))
    assert all(feed.start_of(row).input == Input(input_id=row) for row in taken)
    feed.close()


def test_a_feed_forgets_dropped_rows_also_those_that_are_being_loaded() -> None:
    loader = SlowLoader()
    feed, loaded = feed_of(loader)
    feed.open(range(100), ahead=64)
    feed.open(range(100, 110), ahead=64)
    feed.drop(range(100))
    loader.free.release(100)
    assert loaded.acquire(timeout=30)
    while feed.waiting and not feed.has_some:
        assert loaded.acquire(timeout=30)
    taken = feed.take(100)
    assert set(taken) <= set(range(100, 110))
    feed.close()


def test_a_feed_raises_what_loading_failed_with_after_the_rows_that_are_loaded() -> None:
    loader = SlowLoader()
    feed, loaded = feed_of(loader)
    feed.open(range(128), ahead=500)
    loader.free.release()
    assert loaded.acquire(timeout=30)
    loader.error = StorageError("the bucket is gone")
    loader.free.release()
    assert loaded.acquire(timeout=30)
    assert len(feed.take(100)) == 64
    assert feed.has_some
    with pytest.raises(StorageError, match="the bucket is gone"):
        feed.take(1)
    feed.close()
