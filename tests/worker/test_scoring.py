"""A worker that scores a source: exact rows, values that are lacking, kept columns, orders on the way."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.tiny_chat.reward_model import write_reward_model
from magpie_ray.config.loading import parse_as
from magpie_ray.config.score import ScoreConfig
from magpie_ray.dataset import build_record
from magpie_ray.dataset.parquet import FOOTER_KEY
from magpie_ray.dataset.partitioning import pending
from magpie_ray.dataset.rejects import read_rejects
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.engine.scoring import ScoreRequest
from magpie_ray.engine.simulated.scoring import SimulatedScoringEngine
from magpie_ray.errors import BuildMismatchError, EngineError, ModelError, SourceError
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.preflight.target import check_existing
from magpie_ray.types import Partition
from magpie_ray.worker.events import Event, Progress
from magpie_ray.worker.spec import WorkerSpec
from magpie_ray.worker.worker import ShardWorker
from tests.support.sources import write_source
from tests.support.specs import open_worker_spec
from tests.worker.test_worker import commits, run

FIGURES = EngineFigures(max_num_seqs=4, kv_cache_tokens=10_000, max_model_len=120)
COLUMNS = {
    "level": {"choice": ["easy", "hard"], "prompt": "Level of {instruction}?"},
    "fit": {"choice": ["good", "bad"], "prompt": "Fit of {instruction} {response}?"},
}
ROWS = [{"instruction": f"What is {n}?", "response": f"It is {n}.", "topic": f"t{n}"} for n in range(40)]


@dataclass(frozen=True)
class Scores:
    """An engine factory: the numbers for each request are the caller's function of it."""

    respond: Callable[[ScoreRequest], Sequence[float]]
    vector_size: int | None = None

    def __call__(self, spec: WorkerSpec) -> SimulatedScoringEngine:
        return SimulatedScoringEngine(self.respond, figures=FIGURES, vector_size=self.vector_size)


def first_label(request: ScoreRequest) -> list[float]:
    return [-0.1, *(-3.0 for _ in request.asked[1:])]


def spec_of(folder: Path, rows: Any = ROWS, **keys: Any) -> WorkerSpec:
    """The spec of an open pass over these rows, with one grid cell for each eight."""
    source = {"path": str(write_source(folder / "rows.parquet", rows))} | keys.pop("source", {})
    config = parse_as(
        ScoreConfig,
        {"source": source, "columns": COLUMNS, "output": {"path": str(folder / "out")}} | keys,
    )
    return open_worker_spec(config, grid=8)


def partitions_of(spec: WorkerSpec) -> list[Partition]:
    rows = spec.build_spec.config.num_rows
    return [Partition(start=n, stop=min(n + 8, rows)) for n in range(0, rows, 8)]


def read(spec: WorkerSpec, partitions: Sequence[Partition]) -> tuple[pa.Table, dict[str, int]]:
    """The rows of committed files, and what their footers add up to."""
    tables, counts = [], Counter[str]()
    for partition in partitions:
        file = pq.ParquetFile(pa.BufferReader(spec.storage.read(partition.key)))
        tables.append(file.read())
        footer = json.loads(file.schema_arrow.metadata[FOOTER_KEY])
        counts.update(footer.get("rejected", {}))
        counts["unanswered"] += footer.get("unanswered", 0)
        counts["tokens"] += footer["assistant_tokens"]
    table = pa.concat_tables(tables)
    assert table.schema.equals(spec.build_spec.record(8).schema, check_metadata=False)
    return table, +counts


def scored(spec: WorkerSpec, engine: Scores = Scores(first_label)) -> tuple[pa.Table, dict[str, int]]:
    partitions = partitions_of(spec)
    list(run(ShardWorker(spec, engine), *partitions))
    return read(spec, partitions)


def test_every_row_of_the_source_has_its_scores_once(tmp_path: Path) -> None:
    table, counts = scored(spec_of(tmp_path))
    assert table["row_id"].to_pylist() == list(range(40))
    assert table.column_names == ["row_id", "level", "level_probability", "fit", "fit_probability"]
    assert set(table["level"].to_pylist()) == {"easy"}
    assert set(table["fit"].to_pylist()) == {"good"}
    assert table["level_probability"].to_pylist() == pytest.approx([1 / (1 + math.exp(-2.9))] * 40)
    assert counts == {"tokens": 80}  # one for each question


def test_a_row_without_a_text_or_too_long_is_null_and_counted_by_its_reason(tmp_path: Path) -> None:
    rows = [*ROWS[:3], {"instruction": "No answer?"}, {"instruction": "long " * 200, "response": "yes"}]
    spec = spec_of(tmp_path, rows)
    table, counts = scored(spec)
    assert table["level"].to_pylist() == ["easy"] * 4 + [None]
    assert table["fit"].to_pylist() == ["good"] * 3 + [None] * 2
    assert table["fit_probability"].null_count == 2
    assert counts == {"no_text": 1, "context_full": 1, "unanswered": 2, "tokens": 7}
    kept = {(reject["row_id"], reject["reason"]) for reject in read_rejects(spec.storage)}
    assert kept == {(3, "no_text"), (4, "context_full")}


def test_kept_columns_come_along(tmp_path: Path) -> None:
    table, _ = scored(spec_of(tmp_path, source={"keep": ["topic"]}))
    assert table["topic"].to_pylist() == [row["topic"] for row in ROWS]


def test_progress_counts_rows_and_scores(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    events = list(run(ShardWorker(spec, Scores(first_label)), *partitions_of(spec)))
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.tally.rows, last.tally.tokens, last.started) == (40, 80, 40)
    assert (last.engine.generated_tokens, last.engine.steps) == (80, 20)
    assert last.engine.occupancy == 1.0
    assert len(commits(events)) == 5


def test_a_worker_that_is_told_to_stop_commits_finished_heads_and_another_goes_on(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    partitions = partitions_of(spec)
    worker = ShardWorker(replace(spec, progress_seconds=0.0), Scores(first_label))

    def act(event: Event) -> None:
        if isinstance(event, Progress) and event.tally.rows >= 3:
            worker.stop()

    done = [file for event in commits(list(run(worker, *partitions, act=act))) for file in event.files]
    stops = {file.start // 8: file.stop for file in done}
    assert 3 <= sum(file.rows for file in done) < 40
    left = [
        Partition(start=start, stop=partition.stop)
        for index, partition in enumerate(partitions)
        if (start := stops.get(index, partition.start)) < partition.stop
    ]
    list(run(ShardWorker(spec, Scores(first_label)), *left))
    table, _ = read(spec, [file.partition for file in done] + left)
    assert sorted(table["row_id"].to_pylist()) == list(range(40))


def test_dropped_partitions_leave_the_others_alone(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    partitions = partitions_of(spec)
    worker = ShardWorker(spec, Scores(first_label))
    for partition in partitions:
        worker.give(partition)
    worker.drop(partitions[1])
    worker.finish()
    stored = [event.partition for event in commits(list(worker.run()))]
    assert sorted(stored) == [partitions[0], *partitions[2:]]


def test_a_partition_that_is_dropped_under_way_comes_out_no_more_and_the_others_do(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    partitions = partitions_of(spec)
    worker = ShardWorker(replace(spec, progress_seconds=0.0), Scores(first_label))
    dropped = list[Partition]()

    def act(event: Event) -> None:
        if isinstance(event, Progress) and event.tally.rows and not dropped:
            assert event.tally.rows < partitions[0].num_rows
            dropped.append(partitions[0])
            worker.drop(partitions[0])
            worker.finish()

    stored = {event.partition for event in commits(list(run(worker, *partitions, act=act)))}
    assert dropped
    assert stored == set(partitions[1:])


def test_a_source_that_has_grown_gives_its_new_rows_to_a_worker_of_the_next_run(tmp_path: Path) -> None:
    """The file of the first run stays, and ends where the source ended then."""
    folder = tmp_path / "rows"
    write_source(folder / "a.parquet", ROWS[:12])
    source = {"path": str(folder)}
    before = spec_of(tmp_path, source=source)
    assert before.build_spec.config.num_rows == 12
    list(run(ShardWorker(before, Scores(first_label)), *partitions_of(before)))
    write_source(folder / "b.parquet", ROWS[12:])
    after = spec_of(tmp_path, source=source)
    assert after.fingerprint == before.fingerprint
    left = pending(40, 8, partitions_of(before))
    assert left[0] == Partition(start=12, stop=16)
    list(run(ShardWorker(after, Scores(first_label)), *left))
    table, _ = read(after, [*partitions_of(before), *left])
    assert sorted(table["row_id"].to_pylist()) == list(range(40))
    assert table["level"].null_count == 0


def test_each_response_of_a_row_has_its_reward_and_a_missing_one_none(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "What is it?"}]
    answers = [["short", "a longer answer"], ["x", None], [None, None]]
    rows = [{"conversation": asked, "responses": each} for each in answers]
    model = {"name": str(write_reward_model(tmp_path / "model"))}
    spec = spec_of(tmp_path, rows, columns={"good": {"reward": "response"}}, model=model)
    table, counts = scored(spec, Scores(lambda request: [len(request.prompt_token_ids)], vector_size=1))
    first, second, third = table["good"].to_pylist()
    assert first[0] < first[1]
    assert (len(second), second[1]) == (2, None)
    assert third is None
    assert (counts["no_text"], counts["unanswered"], counts["tokens"]) == (1, 1, 3)


def test_an_engine_that_gives_no_numbers_ends_the_worker_after_what_is_finished(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    asked = Counter[str]()

    def respond(request: ScoreRequest) -> list[float]:
        asked["n"] += 1
        return [float("nan")] * len(request.asked) if asked["n"] > 20 else first_label(request)

    with pytest.raises(EngineError, match="no probabilities"):
        list(run(ShardWorker(spec, Scores(respond)), *partitions_of(spec)))
    table, _ = read(spec, partitions_of(spec)[:1])
    assert table.num_rows == 8


def test_a_source_that_changes_under_a_worker_is_an_error_that_names_it(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    write_source(tmp_path / "rows.parquet", ROWS[:7])
    with pytest.raises(SourceError, match=r"rows\.parquet"):
        list(run(ShardWorker(spec, Scores(first_label)), *partitions_of(spec)))


def test_an_embedding_model_that_differs_from_its_files_is_refused(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, columns={"vector": {"embed": "instruction"}})
    size = spec.build_spec.vector_size
    assert size is not None
    table, _ = scored(spec, Scores(lambda _: [3.0] * size, vector_size=size))
    assert table["vector"].type.list_size == size
    assert table["vector"][0].as_py() == pytest.approx([size**-0.5] * size)
    with pytest.raises(ModelError, match=f"gives vectors of {size + 1} numbers"):
        list(run(ShardWorker(spec, Scores(lambda _: [1.0], vector_size=size + 1)), *partitions_of(spec)))


LABELS = {"choice": ["very hard", "easy"], "prompt": "{labels}\nHow hard is {instruction}"}


@pytest.mark.parametrize(
    "columns",
    [
        {"level": LABELS | {"choice": ["easy", "very hard"]}, "again": LABELS},
        {"again": LABELS, "level": LABELS},
    ],
)
def test_another_order_of_columns_or_labels_is_another_build(tmp_path: Path, columns: Any) -> None:
    spec = spec_of(tmp_path, columns={"level": LABELS, "again": LABELS})
    source, output = ({"path": str(tmp_path / name)} for name in ("rows.parquet", "out"))
    config = parse_as(ScoreConfig, {"source": source, "columns": columns, "output": output})
    existing = build_record.require_build(spec.storage)
    # Labels and columns stay in the order of the config.
    assert list(existing.config["columns"]) == ["level", "again"]
    assert list(existing.config["columns"]["level"]["choice"]) == ["very hard", "easy"]
    with pytest.raises(BuildMismatchError, match=r"columns\.order"):
        check_existing(resolve_build(config, existing), existing, spec.storage)
    # A build that was begun before the order counted goes on.
    identity = {key: value for key, value in existing.identity.items() if key != "columns.order"}
    earlier = replace(existing, identity=identity)
    assert resolve_build(config, earlier).identity() == identity
