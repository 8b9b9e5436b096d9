"""What bad luck explains, and what it does not: bounds on false alarms, and how soon a cause is found."""

import math
import random
from bisect import bisect_left
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.generation.sequential_tests import AcceptRateTest, differs, falls_short, group_false_alarms

RATES = [0.02, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95]  # of rejected attempts


def fewest_failures(accepted: int, rejected: int) -> int:
    """The failures in a row that end the build; a million where so many do not."""
    return bisect_left(range(10**6), True, key=lambda k: differs(k, accepted=accepted, rejected=rejected))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("attempts", [1, 5, 30, 200])
def test_no_row_of_any_build_is_ended_by_chance(rate: float, attempts: int) -> None:
    chance = 0.0
    for rejected in range(attempts + 1):
        accepted = attempts - rejected
        counts = math.comb(attempts, rejected) * rate**rejected * (1 - rate) ** accepted
        chance += counts * rate ** fewest_failures(accepted, rejected)
    # A trillion rows, and one build in 10,000.
    assert chance < 1e-16


@pytest.mark.parametrize("rate", RATES)
def test_no_row_is_ended_by_chance_where_the_rate_is_known_well(rate: float) -> None:
    attempts = 10**6
    assert rate ** fewest_failures(round(attempts * (1 - rate)), round(attempts * rate)) < 1e-16


@pytest.mark.parametrize(("rate", "most"), [(0.02, 15), (0.15, 30), (0.5, 75), (0.85, 330), (0.95, 1100)])
def test_a_row_that_is_never_accepted_is_found_where_its_group_is_known(rate: float, most: int) -> None:
    attempts = 100_000
    assert fewest_failures(round(attempts * (1 - rate)), round(attempts * rate)) <= most


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 2000))
def test_more_failures_say_more_and_a_worse_group_less(accepted: int, rejected: int, failures: int) -> None:
    if differs(failures, accepted=accepted, rejected=rejected):
        assert differs(failures + 1, accepted=accepted, rejected=rejected)
    else:
        assert not differs(failures, accepted=accepted, rejected=rejected + 1)


def test_little_known_of_a_group_explains_everything() -> None:
    for failures in (0, 1, 10, 10_000):
        assert not differs(failures, accepted=0, rejected=10_000)
        assert not differs(failures, accepted=0, rejected=0)
        assert not differs(failures, accepted=1, rejected=0)


def test_simulated_builds_are_not_ended_by_chance_at_a_bound_that_can_be_seen() -> None:
    # The product of two ratios reaches x with (1 + log x) / x, whatever the rate, also early on.
    draw, bound = random.Random(3), math.log(100)
    for rate in (0.3, 0.6, 0.9):
        alarms, rows = 0, 600
        for _ in range(rows):
            failures = 0
            while draw.random() < rate:
                failures += 1
            counts, alarm = [0, 0], False
            for _ in range(150):  # looked at after each attempt of another row
                counts[draw.random() < rate] += 1
                alarm |= differs(failures, accepted=counts[0], rejected=counts[1], enough=bound)
            alarms += alarm
        assert alarms / rows <= (1 + bound) / 100


def outcomes(rate: float, draw: random.Random) -> Iterator[bool]:
    while True:
        yield draw.random() < rate


def found_after(test: AcceptRateTest, results: Iterator[bool], most: int) -> int | None:
    return next((n for n in range(1, most + 1) if test.note(accepted=next(results))), None)


@pytest.mark.parametrize("groups", [1, 20, 100])
def test_a_group_that_accepts_nothing_is_found_within_200_attempts(groups: int) -> None:
    found = found_after(
        AcceptRateTest(0.1, false_alarms=group_false_alarms(groups)), outcomes(0, random.Random(1)), 1000
    )
    assert found is not None
    assert 150 < found <= 200


@pytest.mark.parametrize(
    ("rate", "least", "most"), [(0.01, 0.1, 600), (0.03, 0.1, 1500), (0.05, 0.1, 4000), (0.3, 0.5, 600)]
)
def test_a_group_below_the_least_rate_is_found(rate: float, least: float, most: int) -> None:
    for number in range(20):
        draw = random.Random(number)
        assert found_after(AcceptRateTest(least), outcomes(rate, draw), most) is not None


def test_a_group_that_becomes_bad_late_is_found() -> None:
    test, draw = AcceptRateTest(0.1), random.Random(1)
    assert found_after(test, outcomes(0.5, draw), 100_000) is None
    found = found_after(test, outcomes(0, draw), 1000)
    assert found is not None
    assert found <= 450


@pytest.mark.parametrize("least", [0.001, 0.1, 0.5, 0.9])
def test_a_group_at_the_least_rate_goes_on(least: float) -> None:
    draw = random.Random(2)
    for _ in range(5):
        assert found_after(AcceptRateTest(least), outcomes(least, draw), 10_000) is None


def test_chance_stops_a_group_at_the_least_rate_as_seldom_as_it_may() -> None:
    draw, groups, bound = random.Random(5), 300, 0.2  # one that can be seen
    tests = (AcceptRateTest(0.1, false_alarms=bound) for _ in range(groups))
    stopped = sum(found_after(test, outcomes(0.1, draw), 400) is not None for test in tests)
    assert stopped / groups <= bound


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_of_the_scale_are_rates_too(rate: float) -> None:
    assert not falls_short(10**6, rate=0.0)
    if rate:
        assert falls_short(2, rate=rate)
        assert AcceptRateTest(rate).note(accepted=False)


def test_a_row_is_compared_with_the_least_rate_alone_where_nothing_is_known_of_its_group() -> None:
    assert not falls_short(200, rate=0.1)
    assert falls_short(400, rate=0.1)
