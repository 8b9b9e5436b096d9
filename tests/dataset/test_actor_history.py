"""The record of who worked where, and what becomes of it in storage."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.dataset import actor_history
from magpie_ray.dataset.actor_history import ActorHistory, ActorLife, read_actor_history, write_actor_history
from magpie_ray.errors import CorruptBuildError
from tests.support.builds import memory_storage


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_life_is_told_from_the_request_to_the_end() -> None:
    clock = Clock()
    lives = ActorHistory(run=1, device="cuda", num_gpus=2, clock=clock)
    for moment, tell in (
        (0, lambda: lives.ask(0)),
        (5, lambda: lives.place(0, "node-1")),
        (35, lambda: lives.get_ready(0)),
        (60, lambda: lives.commit(0, 10)),
        (65, lambda: lives.end(0, "lost", "killed")),
        (66, lambda: lives.ask(0)),
        (80, lambda: lives.place(0, "node-2")),
    ):
        clock.now = 1000.0 + moment
        tell()
    clock.now = 1100.0
    lost = ActorLife(
        slot=0, asked=0, placed=5, ready=35, ended=65, node="node-1", rows=10, end="lost", cause="killed"
    )
    replacement = ActorLife(slot=0, asked=66, placed=80, node="node-2")
    assert lives.record().lives == (lost, replacement)
    assert lives.record().held_seconds == 60 + 20
    assert lives.record().gpu_hours == 2 * 80 / 3600
    clock.now = 1110.0
    lives.end_all()
    clock.now = 1200.0
    assert lives.record().held_seconds == 60 + 30


def test_what_is_heard_of_an_actor_that_is_gone_changes_nothing() -> None:
    lives = ActorHistory()
    lives.ask(0)
    lives.end(0, "lost", "first")
    before = lives.record().lives
    lives.commit(0, 5)
    lives.place(0, "late")
    lives.end(0, "ended")
    lives.commit(7, 5)
    assert lives.record().lives == before


def test_what_was_written_is_read_back() -> None:
    storage, clock = memory_storage(), Clock()
    assert read_actor_history(storage, 1) is None
    lives = ActorHistory(run=1, device="cuda", num_gpus=1, clock=clock)
    lives.ask(0)
    lives.ask(3)
    lives.place(3, "nœud")
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
    for slot, seconds in starts:
        lives.end(slot, "lost")
        lives.ask(slot)
        lives.place(slot, "here")
        clock.now += seconds
    whole = lives.record()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actor_history, "MAX_LIVES", most)
        cut = lives.record()
    assert len(cut.lives) == min(most, len(starts))
    assert cut.lives == whole.lives[: len(cut.lives)]
    assert cut.left_out == len(starts) - len(cut.lives)
    assert cut.held_seconds == pytest.approx(whole.held_seconds)


def test_the_file_of_a_thousand_actors_is_small() -> None:
    lives = ActorHistory(run=1)
    for slot in range(1000):
        lives.ask(slot)
        lives.place(slot, "ip-10-0-112-17.eu-central-1.compute.internal")
        lives.get_ready(slot)
        lives.commit(slot, 10_000)
    lives.end_all()
    data = lives.record().to_json()
    assert len(data) < 200_000
    assert len(json.loads(data)["lives"]) == 1000
