"""The loop of a sample, over workers in virtual time: its figures agree with a whole job's."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from jobs.benchmarks.virtual_fleet import VirtualActors
from jobs.benchmarks.virtual_job import run_virtually
from magpie_ray.coordinator.actors import Left, Loss, Lost
from magpie_ray.counters import EngineStats
from magpie_ray.dataset import partitioning
from magpie_ray.errors import GenerationFailedError, InterruptedJobError, RowExhaustedError
from magpie_ray.planning.estimate import Sample, Workload, from_sample
from magpie_ray.planning.sampler import Sampler
from magpie_ray.worker.events import Event, Progress, Ready

GRID = 16


def sampler_of(
    actors: VirtualActors, *, num_rows: int, seconds: float, slots: int, grid: int = GRID
) -> Sampler:
    pieces = partitioning.pending(num_rows, grid, [])
    return Sampler(
        actors, pieces, num_slots=slots, grid=grid, seconds=seconds, began=-5.0, clock=actors.clock
    )


def sampled(rates: Sequence[float], *, num_rows: int, seconds: float) -> tuple[Sample, VirtualActors]:
    actors = VirtualActors(rates, window=32, every=2.0)
    sampler = sampler_of(actors, num_rows=num_rows, seconds=seconds, slots=len(rates))
    sampler.work(lambda: False)
    assert not actors.num_running, "actors were left behind"
    return sampler.result(num_rows=num_rows), actors


class MuteActors(VirtualActors):
    """From some moment on nothing is heard of them; polls take time."""

    mute_after = 0.0

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        told = super().poll(timeout_seconds)
        if self.now < self.mute_after:
            return told
        self.now += 5.0
        return []


@pytest.mark.parametrize(
    ("mute_after", "message"), [(0.0, "were up after 1800 s"), (20.0, "no token .* for 600 s")]
)
def test_engines_that_hang_end_the_sample(mute_after: float, message: str) -> None:
    actors = MuteActors([10.0], window=32, every=2.0)
    actors.mute_after = mute_after
    with pytest.raises(GenerationFailedError, match=message):
        sampler_of(actors, num_rows=100_000, seconds=60, slots=1).work(lambda: False)
    assert actors.now < mute_after + 1900


class WaitingActors(VirtualActors):
    """Their engines wait for a rule that never returns."""

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        stuck = {"engine": EngineStats(), "stored": 0, "awaited_rule": "mine:slow"}
        return [
            (slot, replace(event, **stuck) if isinstance(event, Progress) else event)
            for slot, event in super().poll(timeout_seconds)
            if isinstance(event, (Ready, Progress))
        ]


def test_a_rule_that_hangs_is_named() -> None:
    actors = WaitingActors([10.0], window=32, every=2.0)
    with pytest.raises(GenerationFailedError, match="they wait for the acceptance rule mine:slow"):
        sampler_of(actors, num_rows=100_000, seconds=6000, slots=1).work(lambda: False)


@pytest.mark.parametrize(("workers", "num_rows"), [(1, 3000), (2, 20_000), (8, 40_000)])
def test_a_part_tells_how_long_the_whole_takes(workers: int, num_rows: int) -> None:
    sample, _ = sampled([10.0] * workers, num_rows=num_rows, seconds=60)
    assert not sample.whole
    assert sample.engines == workers
    assert 0.9 * 600 * workers < sample.rows < 1.2 * 600 * workers
    whole = run_virtually(
        workers=workers, rows_per_worker=num_rows // workers, rows_per_partition=GRID, rows_per_second=10
    )
    found = from_sample(sample, Workload(rows=num_rows, files=16, num_actors=workers, gpus_per_actor=0))
    assert found.wall_seconds.low == pytest.approx(whole.seconds + 5.0, rel=0.03)
    assert found.tokens.low == pytest.approx(426 * num_rows, rel=0.01)


def test_a_build_that_is_made_in_the_time_is_measured_as_it_is() -> None:
    sample, actors = sampled([10.0, 10.0], num_rows=500, seconds=3600)
    assert sample.whole
    assert sample.rows == 500
    assert sample.seconds == pytest.approx(actors.last_commit, abs=0.5)
    assert sample.start_seconds == pytest.approx(5.0, abs=0.1)
    assert sample.tail_seconds == 0


def test_rows_that_have_begun_are_finished_and_others_are_taken_back() -> None:
    sample, actors = sampled([10.0], num_rows=100_000, seconds=30)
    given = actors.num_given * GRID
    assert sample.rows <= given
    assert sample.rows >= 300
    assert sample.rows == sum(actors.committed_by.values())
    assert actors.now < 45


def test_rejected_attempts_count_as_tokens_and_attempts() -> None:
    actors = VirtualActors([100.0], window=32, every=2.0)
    sampler = sampler_of(actors, num_rows=100_000, seconds=30, slots=1, grid=100)
    sampler.work(lambda: False)
    sample = sampler.result(num_rows=100_000)
    assert sample.attempts > sample.rows
    assert sample.rejected == sample.attempts - sample.rows
    assert sample.tokens_per_row == pytest.approx(426)


class Failing(VirtualActors):
    """The second poll brings this event alone."""

    def __init__(self, word: Lost | Left) -> None:
        super().__init__([10.0], window=32, every=2.0)
        self._last = word

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        events = super().poll(timeout_seconds)
        return [(0, self._last)] if self.num_polls > 1 else events


@pytest.mark.parametrize(
    ("word", "error", "says"),
    [
        (Lost(cause="no memory", loss=Loss.DIED), GenerationFailedError, "sample was lost: no memory"),
        (Left(), GenerationFailedError, "it left"),
        (Lost(cause="x", loss=Loss.FAILED, error=RowExhaustedError("empty")), RowExhaustedError, "empty"),
    ],
)
def test_an_engine_that_is_lost_ends_the_sample(word: Lost | Left, error: type[Exception], says: str) -> None:
    actors = Failing(word)
    with pytest.raises(error, match=says):
        sampler_of(actors, num_rows=100, seconds=10, slots=1).work(lambda: False)
    assert not actors.num_running


def test_a_sample_can_be_stopped() -> None:
    actors = VirtualActors([10.0], window=32, every=2.0)
    with pytest.raises(InterruptedJobError, match="nothing was written"):
        sampler_of(actors, num_rows=10_000, seconds=100, slots=1).work(lambda: actors.now > 10)
    assert not actors.num_running


def test_a_sample_without_a_row_says_so() -> None:
    actors = VirtualActors([10.0], window=32, every=2.0)
    with pytest.raises(GenerationFailedError, match="more time"):
        sampler_of(actors, num_rows=100, seconds=1, slots=1).result(num_rows=100)
