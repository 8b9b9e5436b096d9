"""A worker without Ray: partitions in, files and events out."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.acceptance import Dialogue, Utterance
from magpie_ray.config.loading import load_config
from magpie_ray.counters import Tally
from magpie_ray.dataset.manifest import footer_of
from magpie_ray.dataset.rejects import read_rejects
from magpie_ray.engine.protocol import Completion, EngineFigures, Request
from magpie_ray.engine.simulated.engine import Answer, SimulatedEngine
from magpie_ray.errors import AcceptRateError, BlockedError, CorruptBuildError, EngineError, StorageError
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition, PartitionRecord
from magpie_ray.worker import parts
from magpie_ray.worker.events import Committed, Event, Progress, Ready
from magpie_ray.worker.parts import make_recipe
from magpie_ray.worker.spec import PROGRESS_SECONDS, WorkerSpec
from magpie_ray.worker.worker import ShardWorker
from tests.support.builds import memory_storage
from tests.support.engines import FIGURES, ScriptedEngine
from tests.support.held import growth, held_by
from tests.support.specs import worker_spec

FIRST, SECOND, THIRD = (Partition(start=n, stop=n + 8) for n in (0, 8, 16))


def make_spec(
    output: Path | str,
    *overrides: str,
    storage: Storage | None = None,
    progress_seconds: float = PROGRESS_SECONDS,
) -> WorkerSpec:
    config = load_config(
        None,
        ["num_rows=100", "n_turns=2", "acceptance.max_attempts=100", f"output.path={output}", *overrides],
    )
    return replace(worker_spec(config, storage=storage), progress_seconds=progress_seconds)


@pytest.fixture
def spec(tmp_path: Path) -> WorkerSpec:
    return make_spec(tmp_path)


def with_storage(spec: WorkerSpec, storage_type: type[Storage]) -> WorkerSpec:
    return replace(spec, storage=storage_type(spec.build_spec.config.output.path))


def run(
    worker: ShardWorker, *partitions: Partition, act: Callable[[Event], None] | None = None
) -> Iterator[Event]:
    """Its events, given these partitions and no more; `act` may do things to it on the way."""
    for partition in partitions:
        worker.give(partition)
    if act is None:
        worker.finish()
    for event in worker.run():
        yield event
        if act is not None:
            act(event)


def commits(events: list[Event]) -> list[Committed]:
    return [event for event in events if isinstance(event, Committed)]


def rows_of(storage: Storage, partition: Partition) -> list[dict[str, object]]:
    table = pq.read_table(pa.BufferReader(storage.read(partition.key)))
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


@dataclass(frozen=True)
class Replies:
    """An engine factory: the answer to each request is the caller's function of it."""

    respond: Callable[[Request], Answer]
    figures: EngineFigures = FIGURES

    def __call__(self, spec: WorkerSpec) -> SimulatedEngine:
        return SimulatedEngine(self.respond, figures=self.figures)


def word(spec: WorkerSpec) -> list[int]:
    """Some ordinary token ids of the model."""
    from magpie_ray.model.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(spec.build_spec.model.location).tokenizer
    ids: list[int] = tokenizer.encode(" one", add_special_tokens=False)
    return ids


def test_of_rejections_that_end_a_worker_a_sample_is_kept(spec: WorkerSpec) -> None:
    partitions = [Partition(start=n, stop=n + 8) for n in range(0, 96, 8)]
    with pytest.raises(AcceptRateError, match="show OUTPUT --rejects"):
        list(run(ShardWorker(spec, ScriptedEngine(reject_every=1)), *partitions))
    kept = list(read_rejects(spec.storage))
    assert {reject["reason"] for reject in kept} == {"empty"}
    assert [reject["row_id"] for reject in kept[:4]] == [0, 1, 2, 8]


def test_rejects_that_cannot_be_kept_do_not_hide_what_ended_a_worker(
    spec: WorkerSpec, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Storage):
        def replace(self, key: str, data: bytes) -> None:
            raise StorageError("no space left")

    worker = ShardWorker(with_storage(spec, Full), ScriptedEngine(reject_every=1))
    with pytest.raises(AcceptRateError):
        list(run(worker, FIRST, *(Partition(start=n, stop=n + 8) for n in range(8, 96, 8))))
    assert "could not be kept: no space left" in caplog.text


def test_a_worker_commits_exactly_the_partitions_it_was_given(spec: WorkerSpec) -> None:
    events = list(run(ShardWorker(spec, ScriptedEngine(reject_every=9)), FIRST, THIRD))
    assert {c.partition for c in commits(events)} == {FIRST, THIRD}
    assert [item.key for item in spec.storage.list_objects("data")] == [FIRST.key, THIRD.key]
    for committed in commits(events):
        assert [record.run for record in committed.files] == [1]
        rows = rows_of(spec.storage, committed.partition)
        assert [row["row_id"] for row in rows] == list(
            range(committed.partition.start, committed.partition.stop)
        )
        roles = [[message["role"] for message in row["conversation"]] for row in rows]  # type: ignore[attr-defined]
        assert roles == [["user", "assistant"] * 2] * 8


def test_the_events_of_a_worker_tell_what_it_did(spec: WorkerSpec) -> None:
    events = list(run(ShardWorker(spec, ScriptedEngine(reject_every=5)), FIRST, SECOND))
    ready, last = events[0], events[-1]
    assert isinstance(ready, Ready)
    assert isinstance(last, Progress)
    assert ready.figures == FIGURES
    assert (last.tally.rows, last.started, last.doing) == (16, 16, "nothing")
    assert last.engine.steps > 0
    assert last.tally == Tally.sum(c.files[0] for c in commits(events))
    assert last.tally.rejected["empty"] > 0
    assert (
        0 < last.engine.kv_used_tokens < last.engine.kv_tokens == last.engine.steps * FIGURES.kv_cache_tokens
    )
    assert all(0 < event.upload_seconds < event.seconds for event in commits(events))


def test_a_few_rejected_messages_are_kept_beside_the_rows_they_were_meant_for(spec: WorkerSpec) -> None:
    events = list(run(ShardWorker(spec, ScriptedEngine(reject_every=3)), FIRST, THIRD))
    rejects = list(read_rejects(spec.storage))
    assert {r["reason"] for r in rejects} == {"empty"}
    for committed in commits(events):
        part = committed.partition
        kept = [r for r in rejects if r["row_id"] in range(part.start, part.stop)]
        assert 1 <= len(kept) <= 3
        assert committed.files[0].rejected["empty"] >= len(kept)


def test_a_record_is_what_the_footer_says(spec: WorkerSpec) -> None:
    [committed] = commits(list(run(ShardWorker(spec, ScriptedEngine()), FIRST)))
    [item] = spec.storage.list_objects("data")
    [record] = committed.files
    assert record == footer_of(spec.storage, FIRST.key, size=item.size)
    assert (record.fingerprint, record.run) == (spec.fingerprint, spec.run)


def test_a_worker_told_to_finish_without_work_just_ends(spec: WorkerSpec) -> None:
    first, *_, last = run(ShardWorker(spec, ScriptedEngine()))
    assert isinstance(first, Ready)
    assert isinstance(last, Progress)
    assert last.started == 0


def test_partitions_can_come_while_others_are_under_way(spec: WorkerSpec) -> None:
    worker = ShardWorker(spec, ScriptedEngine())
    coming = [SECOND, THIRD]

    def act(event: Event) -> None:
        if isinstance(event, Committed):
            if coming:
                worker.give(coming.pop(0))
            else:
                worker.finish()

    events = list(run(worker, FIRST, act=act))
    assert [c.partition for c in commits(events)] == [FIRST, SECOND, THIRD]


def test_every_engine_start_writes_other_rows(spec: WorkerSpec, tmp_path: Path) -> None:
    again = replace(spec, engine_start=1, storage=Storage(str(tmp_path / "again")))
    for each in (spec, again):
        list(run(ShardWorker(each, ScriptedEngine()), FIRST))
    assert rows_of(spec.storage, FIRST) != rows_of(again.storage, FIRST)


def ranges(committed: Committed) -> list[tuple[int, int, int]]:
    return [(record.start, record.stop, record.run) for record in committed.files]


@pytest.mark.parametrize("stop", [8, 12])
def test_a_file_of_somebody_elses_is_told_as_it_is_and_left_alone(spec: WorkerSpec, stop: int) -> None:
    other = replace(spec, run=2)
    list(run(ShardWorker(other, ScriptedEngine()), Partition(start=0, stop=stop)))
    before = spec.storage.read(FIRST.key)
    [committed] = commits(list(run(ShardWorker(spec, ScriptedEngine()), FIRST)))
    assert committed.partition == FIRST
    assert ranges(committed) == [(0, stop, 2)]
    assert spec.storage.read(FIRST.key) == before


def test_rows_beyond_a_shorter_file_of_somebody_elses_are_committed_behind_it(spec: WorkerSpec) -> None:
    other = replace(spec, run=2)
    for head in (Partition(start=0, stop=3), Partition(start=3, stop=4)):
        list(run(ShardWorker(other, ScriptedEngine()), head))
    worker = ShardWorker(spec, ScriptedEngine(reject_every=4))
    [committed] = commits(list(run(worker, FIRST)))
    assert ranges(committed) == [(0, 3, 2), (3, 4, 2), (4, 8, 1)]
    rest = rows_of(spec.storage, Partition(start=4, stop=8))
    assert [row["row_id"] for row in rest] == [4, 5, 6, 7]
    assert Tally.sum([committed.files[-1]]).attempts == sum(int(row["attempt"]) for row in rest)  # type: ignore[call-overload]


def test_a_file_of_another_build_in_the_place_of_a_partition_ends_the_worker(spec: WorkerSpec) -> None:
    list(run(ShardWorker(replace(spec, fingerprint="0" * 64), ScriptedEngine()), FIRST))
    with pytest.raises(CorruptBuildError, match=r"part-000000000000.*another build"):
        list(run(ShardWorker(spec, ScriptedEngine()), FIRST))


def test_a_partition_that_is_not_wanted_any_more_is_dropped_and_the_others_go_on(spec: WorkerSpec) -> None:
    worker = ShardWorker(replace(spec, progress_seconds=0.0), ScriptedEngine(reject_every=6))
    dropped = False

    def act(event: Event) -> None:
        nonlocal dropped
        if isinstance(event, Progress) and event.started and not dropped:
            dropped = True
            worker.drop(SECOND)
            worker.finish()

    events = list(run(worker, FIRST, SECOND, THIRD, act=act))
    assert {c.partition for c in commits(events)} == {FIRST, THIRD}
    assert isinstance(last := events[-1], Progress)
    assert last.doing == "nothing"
    assert last.tally.rows == FIRST.num_rows + THIRD.num_rows + last.dropped_rows


def test_a_partition_is_dropped_before_it_was_taken_up_or_after_it_was_committed(spec: WorkerSpec) -> None:
    worker = ShardWorker(spec, ScriptedEngine())
    worker.give(FIRST)
    worker.drop(FIRST)

    def act(event: Event) -> None:
        if isinstance(event, Committed):
            worker.drop(SECOND)
            worker.finish()

    events = list(run(worker, SECOND, act=act))
    assert [c.partition for c in commits(events)] == [SECOND]


def test_a_foreign_file_in_the_place_of_a_partition_ends_the_worker(spec: WorkerSpec) -> None:
    spec.storage.create(FIRST.key, b"not parquet at all")
    with pytest.raises(CorruptBuildError, match="part-000000000000"):
        list(run(ShardWorker(spec, ScriptedEngine()), FIRST))


def test_a_directory_in_the_place_of_a_partition_ends_the_worker(spec: WorkerSpec, tmp_path: Path) -> None:
    (tmp_path / FIRST.key).mkdir(parents=True)
    with pytest.raises(BlockedError, match=r"part-000000000000.*Move it away"):
        list(run(ShardWorker(spec, ScriptedEngine()), FIRST))


def test_a_worker_told_to_stop_finishes_what_precedes_finished_rows_and_aborts_the_rest(
    tmp_path: Path,
) -> None:
    spec = make_spec(tmp_path, "only_instruction=true", progress_seconds=0.0)
    ids = word(spec)
    slow = {5, 15, 16}  # rows: one before finished ones, the last of the second partition, all of the third

    def respond(request: Request) -> Answer:
        return (ids * 400 if request.request_id in slow else ids), "stop"

    worker, third = ShardWorker(spec, Replies(respond)), Partition(start=16, stop=17)

    def act(event: Event) -> None:
        if isinstance(event, Progress) and event.tally.rows == 14:
            worker.stop()
            worker.give(Partition(start=24, stop=32))  # too late: somebody else generates it

    events = list(run(worker, FIRST, SECOND, third, act=act))
    assert sorted(ranges(committed) for committed in commits(events)) == [[(0, 8, 1)], [(8, 15, 1)]]
    last = events[-1]
    assert isinstance(last, Progress)
    assert last.tally.rows == 15, "rows that no finished row follows are aborted"


def test_a_worker_told_to_stop_commits_the_finished_heads_of_its_partitions_when_time_is_short(
    tmp_path: Path,
) -> None:
    spec = make_spec(tmp_path, "only_instruction=true", progress_seconds=0.0)
    ids = word(spec)
    slow = {5, 8}  # rows: the sixth of the first partition, the first of the second

    def respond(request: Request) -> Answer:
        return (ids * 400 if request.request_id in slow else ids), "stop"

    worker = ShardWorker(spec, Replies(respond), finish_share=0.0)

    def act(event: Event) -> None:
        if isinstance(event, Progress) and event.tally.rows == 14:
            worker.stop()

    events = list(run(worker, FIRST, SECOND, act=act))
    [committed] = commits(events)
    assert (committed.partition, ranges(committed)) == (FIRST, [(0, 5, 1)])
    assert [row["row_id"] for row in rows_of(spec.storage, FIRST)] == list(range(5))
    assert [item.key for item in spec.storage.list_objects("data")] == [FIRST.key]
    # What is left of the partition is a legal one.
    rest = Partition(start=5, stop=8)
    [chained] = commits(list(run(ShardWorker(spec, ScriptedEngine()), rest)))
    assert ranges(chained) == [(5, 8, 1)]


class StalledStorage(Storage):
    """It answers no creation under data/."""

    def create(self, key: str, data: bytes) -> None:
        self._call("create", key, lambda _: time.sleep(600))


def test_a_worker_that_is_told_to_stop_leaves_in_time_though_storage_never_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And in order: a short notice is no reason to doubt the store."""
    spec = with_storage(make_spec(tmp_path, "cluster.notice_seconds=1"), StalledStorage)
    worker = ShardWorker(spec, ScriptedEngine())
    began = list[float]()

    def act(event: Event) -> None:
        if isinstance(event, Progress) and event.tally.rows and not began:
            began.append(time.monotonic())
            worker.stop()

    events = list(run(worker, Partition(start=0, stop=20), act=act))
    assert time.monotonic() - began[0] < 10
    assert not commits(events)
    assert "not all finished rows could be stored in time" in caplog.text


def test_a_worker_that_is_idle_leaves_when_told_to(spec: WorkerSpec) -> None:
    worker = ShardWorker(spec, ScriptedEngine())
    last = list(run(worker, act=lambda event: worker.stop()))[-1]
    assert isinstance(last, Progress)


GATE = threading.Event()


def waits(message: Utterance, conversation: Dialogue) -> None:
    """A rule that returns when the test lets it."""
    assert GATE.wait(60)


@pytest.mark.parametrize("stops", [False, True])
def test_a_worker_that_waits_for_a_rule_says_for_which_and_still_takes_orders(
    tmp_path: Path, stops: bool
) -> None:
    GATE.clear()
    rule = f"{__name__}:waits"
    worker = ShardWorker(
        make_spec(tmp_path, f"acceptance.custom=['{rule}']", progress_seconds=0.01), ScriptedEngine()
    )
    decided = list[int]()

    def act(event: Event) -> None:
        if isinstance(event, Progress):
            decided.append(event.decided)
            if event.awaited_rule == rule and stops:
                worker.stop()
            elif event.awaited_rule == rule:
                GATE.set()
                worker.finish()

    committed = commits(list(run(worker, FIRST, act=act)))
    GATE.set()
    assert (len(committed), decided[-1] > 0) == ((0, False) if stops else (1, True))


class GatedStorage(Storage):
    """Creates nothing before its gate is open."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.gate = threading.Event()
        self.entered = threading.Event()

    def create(self, key: str, data: bytes) -> None:
        self.entered.set()
        assert self.gate.wait(timeout=30)
        super().create(key, data)


def test_an_engine_that_fails_takes_neither_finished_partitions_nor_finished_heads_with_it(
    tmp_path: Path,
) -> None:
    spec = make_spec(tmp_path, "only_instruction=true")
    ids = word(spec)
    endless = 11  # the request, and the row: the fourth of the second partition
    committed = threading.Event()

    def note(event: Event) -> None:
        if isinstance(event, Committed):
            committed.set()

    def factory(spec: WorkerSpec) -> SimulatedEngine:
        engine = Replies(lambda request: (ids * (400 if request.request_id == endless else 1), "stop"))(spec)
        step = engine.step

        def fail_when_only_one_is_left():  # type: ignore[no-untyped-def]
            if engine.outstanding == 1 and committed.wait(0.05):
                raise EngineError("out of memory")
            return step()

        engine.step = fail_when_only_one_is_left  # type: ignore[method-assign]
        return engine

    told: list[Event] = []
    with pytest.raises(EngineError, match="out of memory"):
        told.extend(run(ShardWorker(spec, factory), FIRST, SECOND, act=note))
    assert {c.partition: ranges(c) for c in commits(told)} == {FIRST: [(0, 8, 1)], SECOND: [(8, 11, 1)]}
    assert [item.key for item in spec.storage.list_objects("data")] == [FIRST.key, SECOND.key]


class PickyStorage(Storage):
    """Refuses the first partition."""

    def create(self, key: str, data: bytes) -> None:
        if key == FIRST.key:
            raise StorageError("the disk is full")
        super().create(key, data)


def test_one_refused_key_ends_the_worker_and_costs_no_other_row(spec: WorkerSpec) -> None:
    """Those of partitions that wait for their upload, and of heads, among them."""
    worker = ShardWorker(with_storage(spec, PickyStorage), ScriptedEngine())
    told: list[Event] = []
    with pytest.raises(StorageError, match="the disk is full"):
        told.extend(run(worker, FIRST, SECOND, THIRD))
    made = max(event.tally.rows for event in told if isinstance(event, Progress))
    committed = {c.partition.key for c in commits(told)}
    assert committed == {item.key for item in spec.storage.list_objects("data")}
    assert SECOND.key in committed
    assert made <= 24


class RefusedStorage(Storage):
    """Refuses the first partition, and does not answer for the second."""

    def create(self, key: str, data: bytes) -> None:
        if key == FIRST.key:
            raise StorageError("the disk is full")
        if key == SECOND.key:
            self._call("create", key, lambda _: time.sleep(600))
        super().create(key, data)


def test_the_cause_is_told_soon_though_other_uploads_hang(spec: WorkerSpec) -> None:
    worker = ShardWorker(with_storage(spec, RefusedStorage), ScriptedEngine(), last_uploads_seconds=0.3)
    began = time.monotonic()
    with pytest.raises(StorageError, match="the disk is full"):
        list(run(worker, FIRST, SECOND))
    assert time.monotonic() - began < 30


def test_the_engine_waits_for_storage_only_when_the_buffer_of_finished_partitions_is_full(
    tmp_path: Path,
) -> None:
    storage = GatedStorage(str(tmp_path))
    spec = make_spec(
        tmp_path,
        "only_instruction=true",
        "rounds.cohort_size=8",
        "rounds.cohorts_in_flight=1",
        storage=storage,
        progress_seconds=0.0,
    )
    partitions = [Partition(start=8 * n, stop=8 * n + 8) for n in range(12)]
    worker = ShardWorker(spec, ScriptedEngine(), max_uploads=3)
    waiting: list[Progress] = []

    def act(event: Event) -> None:
        if isinstance(event, Progress) and event.doing == "storing" and not storage.gate.is_set():
            waiting.append(event)
            if len(waiting) == 3:
                storage.gate.set()
        if isinstance(event, Progress) and event.tally.rows == 96:
            worker.finish()

    events = list(run(worker, *partitions, act=act))
    assert {c.partition for c in commits(events)} == set(partitions)
    assert len({event.engine.steps for event in waiting}) == 1  # it stood still, and told so
    assert waiting[0].tally.rows == 8 * (3 + 1)


@pytest.mark.parametrize("fails", [False, True], ids=["all are made", "its engine fails"])
def test_a_worker_reports_while_its_last_files_are_stored(tmp_path: Path, fails: bool) -> None:
    storage = GatedStorage(str(tmp_path))
    spec = make_spec(tmp_path, "only_instruction=true", storage=storage, progress_seconds=0.01)
    ended, waiting = threading.Event(), list[Progress]()

    def before_step() -> None:
        if ended.is_set():
            raise EngineError("out of memory")

    def act(event: Event) -> None:
        if isinstance(event, Progress) and event.tally.rows >= 8 and not storage.gate.is_set():
            if not fails:
                worker.finish()
            elif not ended.is_set():
                ended.set()
                worker.give(SECOND)
            waiting.append(event)
            if len(waiting) == 5:
                storage.gate.set()

    worker = ShardWorker(spec, WatchedEngine(before_step))
    told: list[Event] = []
    try:
        told.extend(run(worker, FIRST, act=act))
    except EngineError:
        assert fails
    assert len(waiting) == 5
    assert storage.exists(FIRST.key)


@dataclass(frozen=True)
class WatchedEngine:
    """An engine factory: calls `before_step` whenever the engine is about to step."""

    before_step: Callable[[], None]

    def __call__(self, spec: WorkerSpec) -> SimulatedEngine:
        engine = ScriptedEngine()(spec)
        step = engine.step

        def watched() -> list[Completion]:
            self.before_step()
            return step()

        engine.step = watched  # type: ignore[method-assign]
        return engine


def test_an_engine_never_steps_while_its_worker_is_thought_to_wait_for_storage(
    tmp_path: Path,
) -> None:
    storage = GatedStorage(str(tmp_path))
    # Few at once: a simulated engine is quicker than acceptance, and would be done with all rows.
    few = ("rounds.cohort_size=8", "rounds.cohorts_in_flight=1")
    spec = make_spec(tmp_path, "only_instruction=true", *few, storage=storage, progress_seconds=0.01)
    told = ["nothing"]
    steps_after = Counter[str]()
    worker = ShardWorker(spec, WatchedEngine(lambda: steps_after.update([told[-1]])))

    def act(event: Event) -> None:
        if isinstance(event, Progress):
            told.append(event.doing)
            if event.doing == "storing":
                storage.gate.set()
            if event.tally.rows == 96:
                worker.finish()

    list(run(worker, *(Partition(start=8 * n, stop=8 * n + 8) for n in range(12)), act=act))
    assert "storing" in told
    assert steps_after["generating"] > 0
    assert "storing" not in steps_after


def test_a_run_that_is_given_up_from_outside_ends_quietly(tmp_path: Path) -> None:
    storage = GatedStorage(str(tmp_path))
    worker = ShardWorker(make_spec(tmp_path, storage=storage, progress_seconds=0.0), ScriptedEngine())
    worker.give(FIRST)
    events = worker.run()
    for _ in events:
        if storage.entered.is_set():
            storage.gate.set()
            break
    events.close()  # type: ignore[attr-defined]
    assert [item.key for item in storage.list_objects("data")] == [FIRST.key]


def test_the_recipe_takes_everything_from_the_spec(tmp_path: Path) -> None:
    spec = make_spec(
        tmp_path, "sampling.user.temperature=0.7", "acceptance.max_attempts=3", "end_with_user=true"
    )
    recipe = make_recipe(spec)
    [sampling] = recipe.samplings
    assert sampling.user.settings.temperature == 0.7
    assert sampling.user.stop_token_ids == spec.build_spec.chat_format.user_stop_token_ids
    assert sampling.assistant.stop_token_ids == spec.build_spec.chat_format.assistant_stop_token_ids
    assert (recipe.messages_per_row, recipe.acceptance.max_attempts) == (3, 3)
    assert recipe.prompts == spec.build_spec.prompts
    assert recipe.decode([word(spec)]) == ["one"]


@pytest.mark.parametrize(("on_truncated", "accepted"), [("keep", True), ("reject", False)])
def test_cut_answers_are_accepted_as_the_config_says(
    tmp_path: Path, on_truncated: str, accepted: bool
) -> None:
    from magpie_ray.acceptance import Dialogue, Utterance, reason_to_reject

    recipe = make_recipe(make_spec(tmp_path, f"acceptance.truncated_response={on_truncated}"))
    cut = Utterance(role="assistant", text="Because", token_ids=[], finish_reason="length")
    assert (reason_to_reject(cut, Dialogue(), [*recipe.rules.values()]) is None) == accepted


def test_what_a_turn_is_expected_to_add_counts_the_messages_it_has(tmp_path: Path) -> None:
    figures = replace(FIGURES, max_model_len=10**6)
    user, assistant = 512, 1024

    def expected(*overrides: str) -> int:
        return parts.expected_turn_tokens(make_spec(tmp_path, *overrides), figures)

    assert expected("only_instruction=true") == int(0.28 * user)
    assert expected("n_turns=1") == expected("n_turns=3") == int(0.28 * (user + assistant))


def test_records_of_a_partition_add_up_to_its_rows(spec: WorkerSpec) -> None:
    worker = ShardWorker(spec, ScriptedEngine(reject_every=6))
    records: list[PartitionRecord] = [c.files[0] for c in commits(list(run(worker, FIRST, SECOND)))]
    for record in records:
        rows = rows_of(spec.storage, record.partition)
        attempts = sum(int(row["attempt"]) for row in rows)  # type: ignore[call-overload]
        assert attempts == Tally.sum([record]).attempts


def test_nothing_that_a_worker_holds_grows_with_its_partitions() -> None:
    spec = make_spec("memory://soak", storage=memory_storage())
    worker = ShardWorker(spec, ScriptedEngine(8, replace(FIGURES, kv_cache_tokens=4096)))
    partitions = [Partition(start=n, stop=n + 8) for n in range(0, 1280, 8)]
    events, samples = worker.run(), []
    for event in events:
        if isinstance(event, Ready):
            for partition in partitions[:8]:
                worker.give(partition)
            del partitions[:8]
        if isinstance(event, Committed) and partitions:
            worker.give(partitions.pop(0))
            if len(partitions) % 10 == 0:
                samples.append(held_by(events, but=[spec]))
        elif not partitions:
            worker.finish()
    assert len(samples) == 16
    assert growth(samples) == {}


def test_cohorts_are_whole_until_the_last_rows_of_a_build_however_small_its_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, start = list[int](), AdmissionWindow.start

    def note(window: AdmissionWindow, size: int, *, step: int) -> None:
        sizes.append(size)
        start(window, size, step=step)

    monkeypatch.setattr(AdmissionWindow, "start", note)
    coming = [Partition(start=first, stop=first + 10) for first in range(0, 600, 10)]
    rules = ("acceptance.rules.repetition=false", "acceptance.rules.repeated_turn=false")
    spec = make_spec(tmp_path, "num_rows=600", *rules, progress_seconds=0.0)
    draw, text = random.Random(0), word(spec)

    def respond(_: Request) -> Answer:
        return text * draw.randint(20, 60), "stop"

    worker = ShardWorker(spec, Replies(respond))
    given = 0

    def act(event: Event) -> None:
        """As the driver does."""
        nonlocal given
        while isinstance(event, Progress) and coming and given - event.started < event.live_window:
            worker.give(coming.pop(0))
            given += 10
        if not coming:
            worker.last()
            worker.finish()

    list(run(worker, act=act))
    assert given == 600
    assert len(sizes) > 20
    assert sizes.count(1) < sum(sizes) / 10, sizes
