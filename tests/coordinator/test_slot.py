"""How fast a worker is, and when it will be done."""

import pytest

from magpie_ray.coordinator.slot import Pace


def pace_of(*reports: tuple[int, float]) -> Pace:
    """A worker that was given its first rows at 100 s, and then reported (rows finished, time)."""
    pace = Pace.starting(100.0)
    for finished, now in reports:
        pace.note(finished, now)
    return pace


def test_the_rate_is_that_of_its_whole_time() -> None:
    assert pace_of((5, 110.0), (30, 120.0)).rows_per_second == 1.5


def test_there_is_no_rate_before_the_first_row() -> None:
    assert pace_of().rows_per_second is None
    assert pace_of((0, 200.0)).rows_per_second is None


def test_a_worker_that_waits_for_work_does_not_become_slow() -> None:
    assert pace_of((30, 120.0), (30, 1000.0)).rows_per_second == 1.5


def test_rows_that_end_in_the_moment_they_are_given_are_no_division_by_zero() -> None:
    rate = pace_of((3, 100.0)).rows_per_second
    assert rate is not None
    assert rate > 0


def test_what_is_left_takes_as_long_as_its_rate_says() -> None:
    assert pace_of((10, 110.0)).seconds_left(20, 110.0) == 20.0


@pytest.mark.parametrize("rows", [0, -3])
def test_nothing_takes_no_time(rows: int) -> None:
    assert pace_of((10, 110.0)).seconds_left(rows, 500.0) == 0.0


def test_who_stood_still_for_a_minute_is_expected_to_do_so_for_another() -> None:
    pace = pace_of((10, 110.0), (10, 170.0))
    assert pace.seconds_left(20, 170.0) == 60.0
    assert pace.seconds_left(80, 170.0) == 80.0
    pace.note(11, 171.0)
    assert pace.seconds_left(20, 171.0) == pytest.approx(20 * 71 / 11)


def test_before_its_first_row_it_is_expected_to_take_as_long_again() -> None:
    assert pace_of().seconds_left(20, 130.0) == 30.0


def test_a_report_that_comes_late_does_not_set_it_back() -> None:
    pace = pace_of((10, 110.0), (8, 111.0))
    assert (pace.finished, pace.moved) == (10, 110.0)
