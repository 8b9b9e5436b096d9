"""What the storage benchmark finds and no clock is needed for: bytes, requests, and who does what."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.benchmarks.storage import Text, as_parquet, make_rows, sizes_of
from magpie_ray.engine.protocol import Completion
from magpie_ray.engine.simulated.engine import SimulatedEngine
from magpie_ray.generation.recipe import Recipe
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition, Row
from magpie_ray.worker import committer
from magpie_ray.worker.spec import WorkerSpec
from magpie_ray.worker.worker import ShardWorker
from tests.support.engines import ScriptedEngine
from tests.support.s3_server import FaultProxy, S3Server
from tests.worker.test_worker import make_spec

TEXTS = {"conversation.list.element.content", "instruction", "response"}


@pytest.fixture(scope="module")
def text() -> Text:
    return Text(seed=0)


def column_bytes(data: bytes) -> dict[str, int]:
    metadata = pq.read_metadata(pa.BufferReader(data))
    found = defaultdict[str, int](int)
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        for column in (group.column(i) for i in range(group.num_columns)):
            found[column.path_in_schema] += column.total_compressed_size
    return found


def text_bytes(rows: Sequence[Row]) -> int:
    return sum(len(message.text.encode()) for row in rows for message in row.messages)


@pytest.mark.parametrize(("turns", "copies"), [(1, 2), (3, 1)])
def test_a_file_is_a_third_of_its_texts_and_little_else(text: Text, turns: int, copies: int) -> None:
    rows = make_rows(text, 600, turns=turns)
    data, _ = as_parquet(rows, turns=turns)
    assert len(data) < 0.36 * copies * text_bytes(rows)
    others = {name: size for name, size in column_bytes(data).items() if name not in TEXTS}
    assert sum(others.values()) < 30 * len(rows)


def test_what_is_the_same_in_all_rows_takes_no_room(text: Text) -> None:
    rows = make_rows(text, 600, turns=3)
    found = column_bytes(as_parquet(rows, turns=3)[0])
    for name in ("model_name", "system_prompt", "conversation.list.element.role"):
        assert found[name] < len(rows)


def test_footers_stay_within_what_one_read_gets(text: Text) -> None:
    data, _ = as_parquet(make_rows(text, 600, turns=3), turns=3)
    assert pq.read_metadata(pa.BufferReader(data)).serialized_size < 8 << 10


def test_jsonl_and_the_peers_columns_are_larger(text: Text) -> None:
    sizes = {row["format"]: row["times_ours"] for row in sizes_of(make_rows(text, 600, turns=3), turns=3)}
    assert sizes["ours as JSONL"] > 3.5
    assert sizes["distilabel's columns, its Parquet (snappy)"] > 1.5


def test_a_committed_partition_is_one_put_and_nothing_else(s3_server: S3Server, tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    with FaultProxy(s3_server) as proxy:
        url = f"s3://{proxy.server.bucket}/calls"
        worker = ShardWorker(
            replace(spec, storage=Storage(url, proxy.server.storage_options)), ScriptedEngine()
        )
        for start in (0, 8, 16):
            worker.give(Partition(start=start, stop=start + 8))
        worker.finish()
        for _ in worker.run():
            pass
        asked = sorted(request.partition("?")[0] for request in proxy.requests)
    keys = [Partition(start=start, stop=start + 8).key for start in (0, 8, 16)]
    assert asked == [f"PUT /{proxy.server.bucket}/calls/{key}" for key in keys]


# ---- off the engine's loop


class Threads:
    """Who did what."""

    def __init__(self) -> None:
        self.of = defaultdict[str, set[int]](set)

    def note(self, what: str) -> None:
        self.of[what].add(threading.get_ident())


@dataclass(frozen=True)
class NotingEngines:
    threads: Threads

    def __call__(self, spec: WorkerSpec) -> SimulatedEngine:
        threads, engine = self.threads, ScriptedEngine()(spec)
        step = engine.step

        def noting_step() -> list[Completion]:
            threads.note("step")
            return step()

        engine.step = noting_step  # type: ignore[method-assign]
        return engine


def test_decoding_checks_arrow_and_storage_stay_out_of_the_engines_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads()
    to_parquet = committer.to_parquet

    class NotingWorker(ShardWorker):
        def make_recipe(self, spec: WorkerSpec) -> Recipe:
            recipe = super().make_recipe(spec)

            def decode(messages: list[list[int]]) -> list[str]:
                threads.note("decode")
                return recipe.decode(messages)

            def rule(_: object, __: object) -> None:
                threads.note("check")

            return replace(recipe, decode=decode, rules={**recipe.rules, "noting": rule})

    def noting_to_parquet(*arguments: object, **keys: object) -> object:
        threads.note("arrow")
        return to_parquet(*arguments, **keys)  # type: ignore[arg-type]

    class NotingStorage(Storage):
        def create(self, key: str, data: bytes) -> None:
            threads.note("create")
            super().create(key, data)

    monkeypatch.setattr(committer, "to_parquet", noting_to_parquet)
    spec = replace(make_spec(tmp_path), storage=NotingStorage(str(tmp_path)))
    worker = NotingWorker(spec, NotingEngines(threads))
    worker.give(Partition(start=0, stop=8))
    worker.finish()
    for _ in worker.run():
        pass
    assert set(threads.of) == {"step", "decode", "check", "arrow", "create"}
    assert threads.of["step"] == {threading.get_ident()}
    beside = set.union(*(found for what, found in threads.of.items() if what != "step"))
    assert threading.get_ident() not in beside
