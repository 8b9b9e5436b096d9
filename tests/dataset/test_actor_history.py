"""The record of who worked where, and what becomes of it in storage."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.coordinator.actor_history import ActorHistory
from magpie_ray.coordinator.actors import Loss, Lost
from magpie_ray.coordinator.nodes import NodePaused
from magpie_ray.coordinator.watcher import Ended, Requested, Snapshot
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.dataset.actor_history import (
    MAX_NODES,
    MAX_POINTS,
    ActorLife,
    FailedNode,
    read_actor_history,
    write_actor_history,
)
from magpie_ray.dataset.layout import actors_key
from magpie_ray.errors import CorruptBuildError
from magpie_ray.types import Partition, PartitionRecord
from magpie_ray.worker.events import Committed, Placed, Ready
from tests.support.builds import memory_storage
from tests.support.engines import FIGURES
from tests.support.held import growth, held_by

READY = Ready(figures=FIGURES, seconds=1.0)


def placed(host: str) -> Placed:
    return Placed(node_id="n", host=host, pid=1, log_path="")


def lost(cause: str = "") -> Lost:
    return Lost(cause=cause, loss=Loss.DIED)


def committed(rows: int) -> Committed:
    record = PartitionRecord(start=0, stop=rows, fingerprint="f", run=1, size=1)
    return Committed(partition=Partition(start=0, stop=rows), files=(record,), seconds=0.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_life_is_told_from_the_request_to_the_end() -> None:
    clock = Clock()
    lives = ActorHistory(run=1, device="cuda", num_gpus=2, clock=clock)
    for moment, tell in (
        (0, lambda: lives.hear(0, Requested())),
        (5, lambda: lives.hear(0, placed("node-1"))),
        (35, lambda: lives.hear(0, READY)),
        (60, lambda: lives.hear(0, committed(10))),
        (65, lambda: lives.hear(0, lost("killed"))),
        (66, lambda: lives.hear(0, Requested())),
        (80, lambda: lives.hear(0, placed("node-2"))),
    ):
        clock.now = 1000.0 + moment
        tell()
    clock.now = 1100.0
    killed = ActorLife(
        slot=0, asked=0, placed=5, ready=35, ended=65, node="node-1", rows=10, end="lost", cause="killed"
    )
    replacement = ActorLife(slot=0, asked=66, placed=80, node="node-2")
    assert lives.record().lives == (killed, replacement)
    assert lives.record().held_seconds == 60 + 20
    assert lives.record().gpu_hours == 2 * 80 / 3600
    clock.now = 1110.0
    lives.hear(0, Ended())
    clock.now = 1200.0
    assert lives.record().held_seconds == 60 + 30


def test_what_is_heard_of_an_actor_that_is_gone_changes_nothing() -> None:
    lives = ActorHistory()
    lives.hear(0, Requested())
    lives.hear(0, lost("first"))
    before = lives.record().lives
    lives.hear(0, committed(5))
    lives.hear(0, placed("late"))
    lives.hear(0, Ended())
    lives.hear(7, committed(5))
    assert lives.record().lives == before


def test_what_was_written_is_read_back() -> None:
    storage, clock = memory_storage(), Clock()
    assert read_actor_history(storage, 1) is None
    lives = ActorHistory(run=1, device="cuda", num_gpus=1, clock=clock)
    lives.hear(0, Requested())
    lives.hear(3, Requested())
    lives.hear(3, placed("nœud"))
    write_actor_history(storage, lives.record())
    assert read_actor_history(storage, 1) == lives.record()
    assert read_actor_history(storage, 2) is None


@pytest.mark.parametrize("content", ["[]", "{}", '{"lives": 3}', '{"lives": [{"slot": 1}]}', "no json"])
def test_a_foreign_file_is_named(content: str) -> None:
    storage = memory_storage()
    storage.replace("_magpie/runs/000001.actors.json", content.encode())
    with pytest.raises(CorruptBuildError, match=r"000001.actors.json"):
        read_actor_history(storage, 1)


@given(starts=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), max_size=20), most=st.integers(0, 5))
def test_the_list_is_bounded_and_the_sums_are_not(starts: list[tuple[int, int]], most: int) -> None:
    clock = Clock()
    lives = ActorHistory(num_gpus=1, clock=clock)
    bounded = ActorHistory(num_gpus=1, clock=clock, most=most)
    for slot, seconds in starts:
        for history in (lives, bounded):
            for event in (lost(), Requested(), placed("here")):
                history.hear(slot, event)
        clock.now += seconds
    whole, cut = lives.record(), bounded.record()
    assert len(cut.lives) == min(most, len(starts))
    assert cut.lives == whole.lives[: len(cut.lives)]
    assert cut.left_out == len(starts) - len(cut.lives)
    assert cut.held_seconds == pytest.approx(whole.held_seconds)


def test_a_week_of_replacements_is_held_in_bounded_memory() -> None:
    history, samples = ActorHistory(run=1, most=50), []
    for number in range(20_000):
        for event in (Requested(), placed("node"), READY, lost("out of memory")):
            history.hear(number % 7, event)
        if number % 1000 == 500:
            samples.append(held_by(history))
    assert growth(samples) == {}
    record = history.record()
    assert (len(record.lives), record.left_out) == (50, 19_950)


def test_the_file_of_a_thousand_actors_is_small() -> None:
    lives = ActorHistory(run=1)
    for slot in range(1000):
        lives.hear(slot, Requested())
        lives.hear(slot, placed("ip-10-0-112-17.eu-central-1.compute.internal"))
        lives.hear(slot, READY)
        lives.hear(slot, committed(10_000))
    for slot in range(1000):
        lives.hear(slot, Ended())
    storage = memory_storage()
    write_actor_history(storage, lives.record())
    data = storage.read(actors_key(1))
    assert len(data) < 200_000
    assert len(json.loads(data)["lives"]) == 1000


def test_a_node_that_is_left_alone_again_and_again_is_one_entry_and_their_number_is_bounded() -> None:
    history = ActorHistory()
    for number in range(1000):
        for failures in (2, 3):
            paused = NodePaused(
                node_id=f"id-{number}", host="gpu-7", failures=failures, seconds=60.0, cause="ECC error"
            )
            history.hear(0, paused)
    storage = memory_storage()
    write_actor_history(storage, history.record())
    stored = read_actor_history(storage, 0)
    assert stored is not None
    assert len(stored.failed_nodes) == MAX_NODES
    assert stored.failed_nodes[0] == FailedNode(
        node_id="id-0", host="gpu-7", failures=3, pauses=2, cause="ECC error"
    )


def test_a_history_without_failed_nodes_is_read_and_written_as_before() -> None:
    storage = memory_storage()
    write_actor_history(storage, ActorHistory().record())
    assert "failed_nodes" not in json.loads(storage.read(actors_key(0)))
    assert read_actor_history(storage, 0) == ActorHistory(clock=lambda: 0.0).record()


def snapshot(tokens: int) -> Snapshot:
    return Snapshot(
        num_rows=10,
        rows=0,
        rows_this_run=0,
        committed_rows=0,
        generated=Tally(),
        actors_up=1,
        actors_starting=0,
        actors_wanted=1,
        lost=0,
        lost_rows=0,
        seconds=1.0,
        engines=EngineStats(generated_tokens=tokens),
    )


@given(st.integers(1, 3000), st.floats(0.3, 40))
def test_the_tokens_are_told_over_time_in_few_points_that_end_with_the_last(looks: int, step: float) -> None:
    clock, storage = Clock(), memory_storage()
    history = ActorHistory(run=1, clock=clock)
    for look in range(1, looks + 1):
        clock.now += step
        history.show(snapshot(tokens=7 * look))
    write_actor_history(storage, history.record())
    read = read_actor_history(storage, 1)
    assert read is not None
    assert len(read.generated) <= MAX_POINTS + 1
    assert read.generated[0] == (0.0, 0)
    assert read.generated[-1] == (pytest.approx(step * looks, abs=0.06), 7 * looks)
    assert list(read.generated) == sorted(read.generated)
