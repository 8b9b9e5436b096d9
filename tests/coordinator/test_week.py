"""The virtual week of tests/chaos/week in its short form, and small random worlds."""

import logging
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magpie_ray.types import Partition
from tests.chaos.week.drivers import run_week
from tests.chaos.week.prompts import Prompts
from tests.chaos.week.report import problems
from tests.chaos.week.scale import HOUR, Scale, short
from tests.chaos.week.worker import Engine

# After an actor of a slot failed, its next one may wait for ten minutes, and a quarter of that.
_LONGEST_WAIT_SECONDS = 1800.0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("magpie_ray")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize(
    ("seed", "actors_per_node", "faults"), [(0, 1, 10), (1, 1, 10), (2, 1, 10), (1, 8, 6)]
)
def test_half_a_day_with_all_kinds_of_faults_ends_by_itself_with_every_row_once(
    seed: int, actors_per_node: int, faults: int
) -> None:
    week = run_week(short(seed, actors_per_node=actors_per_node))
    # The end, and a driver that is killed, cost the more the shorter a build is.
    assert not list(problems(week, least_share=0.85, longest_wait=_LONGEST_WAIT_SECONDS))
    happened = {fault for fault, cost in week.costs.by_fault.items() if cost.times}
    assert len(happened) >= faults, happened


def test_an_engine_of_a_week_makes_tokens_until_its_last_row_is_finished() -> None:
    scale = short(0)
    engine = Engine(Prompts(scale), scale.live_window, since=0.0)
    work = engine.give(Partition(start=0, stop=scale.rows_per_partition), 0.0).work
    assert work.length > work.seconds + 100.0, "the last row is alone for a while"
    done = [
        engine.progress(work.seconds + 20.0 * n).work for n in range(int((work.length - work.seconds) / 20))
    ]
    assert all(before < after for before, after in pairwise(done))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    actors_per_node=st.integers(1, 2),
    broken=st.sampled_from([0.0, 0.2, 0.4]),
    stay_hours=st.floats(0.5, 8.0),
    notice=st.sampled_from([0.0, 0.5, 1.0]),
    outage_hours=st.floats(0.2, 2.5),
    driver_hours=st.floats(0.5, 4.0),
    hub_refuses_seconds=st.sampled_from([0.0, 600.0]),
)
def test_a_small_world_of_random_faults_ends_with_every_row_once(
    seed: int,
    actors_per_node: int,
    broken: float,
    stay_hours: float,
    notice: float,
    outage_hours: float,
    driver_hours: float,
    hub_refuses_seconds: float,
) -> None:
    world = Scale(
        seed=seed,
        rows=4_000 * actors_per_node,
        rows_per_partition=50,
        nodes=5,
        actors_per_node=actors_per_node,
        days=0.05,
        broken=broken,
        stay_seconds=stay_hours * HOUR,
        notice=notice,
        outage_at=outage_hours * HOUR,
        driver_lives_seconds=driver_hours * HOUR,
        hub_refuses_seconds=hub_refuses_seconds,
        request_seconds=0.5,
    )
    week = run_week(world)
    assert not list(problems(week, least_share=0.0, longest_wait=_LONGEST_WAIT_SECONDS))
