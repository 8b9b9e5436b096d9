"""The progress line."""

import io
import logging
from dataclasses import replace

import pytest
from rich.console import Console

from magpie_ray import progress
from magpie_ray.progress import ProgressDisplay, Snapshot

HALF_WAY = Snapshot(
    num_rows=2000,
    rows=1000,
    rows_this_run=500,
    tokens=50_000,
    rejected=25,
    attempts=1000,
    actors_up=2,
    actors_starting=0,
    actors_wanted=3,
    lost=0,
    lost_rows=0,
    seconds=100.0,
)


def log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_the_line_has_rows_rates_acceptance_actors_and_time_left() -> None:
    assert HALF_WAY.line() == (
        "1,000/2,000 rows, 5.0 rows/s, 500 tokens/s, ETA 3:20, 2/3 actors, 97.5% accepted"
    )
    assert "2/3 actors, 4 replaced," in replace(HALF_WAY, lost=4).line()


def test_before_anything_happened_there_are_no_rates_and_no_time_left() -> None:
    start = replace(HALF_WAY, rows=0, rows_this_run=0, tokens=0, rejected=0, attempts=0, seconds=0.0)
    assert start.line() == "0/2,000 rows, 0.0 rows/s, 0 tokens/s, ETA -, 2/3 actors, - accepted"


@pytest.mark.parametrize(
    ("rows", "num_rows", "eta"), [(1000, 1000, "0:00"), (0, 295, "0:59"), (0, 5 * 3661, "1:01:01")]
)
def test_the_time_left_is_told_in_minutes_or_hours(rows: int, num_rows: int, eta: str) -> None:
    assert replace(HALF_WAY, rows=rows, num_rows=num_rows).eta == eta


def test_a_log_gets_a_line_now_and_then_and_the_last_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.progress")
    now = [5.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressDisplay(Console(file=io.StringIO())) as display:
        display.show(replace(HALF_WAY, rows=1))
        now[0] += progress.LOG_SECONDS / 2
        display.show(replace(HALF_WAY, rows=2))
        now[0] += progress.LOG_SECONDS / 2
        display.show(replace(HALF_WAY, rows=3))
        display.show(replace(HALF_WAY, rows=4))
        assert [line.split("/")[0] for line in log_lines(caplog)] == ["1", "3"]
    assert [line.split("/")[0] for line in log_lines(caplog)] == ["1", "3", "4"]


def test_the_last_line_is_not_logged_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.progress")
    with ProgressDisplay(Console(file=io.StringIO())) as display:
        display.show(HALF_WAY)
    assert len(log_lines(caplog)) == 1


def test_a_terminal_gets_a_bar_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.progress")
    screen = io.StringIO()
    with ProgressDisplay(Console(file=screen, force_terminal=True, width=200)) as display:
        display.show(replace(HALF_WAY, actors_up=0))
        display.show(HALF_WAY)
    assert "1,000/2,000 rows" in screen.getvalue()
    assert "50%" in screen.getvalue()
    assert log_lines(caplog) == []
