"""Rates over time, by when files were committed."""

from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.monitoring.status import Commit, history, rate

COMMITS = [Commit(at=at, rows=10) for at in (100.0, 110.0, 119.0, 120.0)]


def test_a_rate_counts_what_was_committed_in_its_time() -> None:
    assert rate(COMMITS, begin=100.0, end=120.0) == 1.5
    assert rate(COMMITS, begin=115.0, end=120.0) == 4.0
    assert rate(COMMITS, begin=120.0, end=140.0) == 0.0
    assert rate(COMMITS, begin=120.0, end=120.0) == 0.0


def test_a_history_has_a_rate_for_each_part_of_the_time() -> None:
    assert history(COMMITS, begin=99.0, end=119.0, parts=2) == [1.0, 2.0]
    assert history(COMMITS, begin=110.0, end=120.0, parts=5) == [0, 0, 0, 0, 10]
    assert history(COMMITS, begin=120.0, end=120.0, parts=5) == []


@given(st.lists(st.tuples(st.floats(-10, 110), st.integers(1, 50))), st.integers(1, 9))
def test_the_parts_of_a_history_make_up_the_whole(made: list[tuple[float, int]], parts: int) -> None:
    commits = [Commit(at=at, rows=rows) for at, rows in made]
    told = history(commits, begin=0.0, end=100.0, parts=parts)
    assert abs(sum(told) / parts - rate(commits, begin=0.0, end=100.0)) < 1e-9
