"""What a job shows of its progress."""

import io
import logging
from dataclasses import replace

import pytest
from rich.console import Console

from magpie_ray.coordinator.watcher import Snapshot
from magpie_ray.counters import Tally
from magpie_ray.monitoring.progress import ProgressDisplay, line

HALF_WAY = Snapshot(
    num_rows=2000,
    rows=1000,
    rows_this_run=500,
    committed_rows=900,
    generated=Tally(rows=975, rejected={"empty": 25}, user_tokens=10_000, assistant_tokens=40_000),
    actors_up=2,
    actors_starting=0,
    actors_wanted=3,
    lost=0,
    lost_rows=0,
    seconds=100.0,
)


def log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_the_line_has_rows_rates_acceptance_time_left_and_actors() -> None:
    text = "1,000/2,000 rows, 5.0 rows/s, 500 tokens/s, 97.5% accepted, ETA 3:20, 2 actors up"
    assert line(replace(HALF_WAY, actors_wanted=2)) == text
    assert line(HALF_WAY) == f"{text}, 1 waiting for a node"
    assert line(replace(HALF_WAY, actors_up=1, actors_wanted=1)).endswith(", 1 actor up")
    assert line(replace(HALF_WAY, actors_starting=1, lost=4)) == f"{text}, 1 starting, 4 replaced"


def test_before_anything_happened_there_are_no_rates_and_no_time_left() -> None:
    start = replace(HALF_WAY, rows=0, rows_this_run=0, generated=Tally(), seconds=0.0, actors_wanted=2)
    assert line(start) == "0/2,000 rows, 0.0 rows/s, 0 tokens/s, - accepted, ETA -, 2 actors up"
    assert start.fields()["eta_seconds"] is None


def test_a_log_record_carries_the_numbers_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.monitoring.progress")
    with ProgressDisplay(Console(file=io.StringIO())) as display:
        display.show(HALF_WAY)
    [record] = caplog.records
    fields = {name: getattr(record, name) for name in HALF_WAY.fields()}
    assert fields == {
        "num_rows": 2000,
        "rows": 1000,
        "committed_rows": 900,
        "rows_per_second": 5.0,
        "tokens_per_second": 500.0,
        "accepted": 0.975,
        "eta_seconds": 200,
        "actors_up": 2,
        "actors_starting": 0,
        "actors_waiting": 1,
        "actors_replaced": 0,
    }


def test_a_log_gets_a_line_now_and_then_and_the_last_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.monitoring.progress")
    now = [5.0]
    with ProgressDisplay(Console(file=io.StringIO()), log_seconds=30.0, clock=lambda: now[0]) as display:
        display.show(replace(HALF_WAY, rows=1))
        now[0] += 15.0
        display.show(replace(HALF_WAY, rows=2))
        now[0] += 15.0
        display.show(replace(HALF_WAY, rows=3))
        display.show(replace(HALF_WAY, rows=4))
        assert [line.split("/")[0] for line in log_lines(caplog)] == ["1", "3"]
    assert [line.split("/")[0] for line in log_lines(caplog)] == ["1", "3", "4"]


def test_the_last_line_is_not_logged_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.monitoring.progress")
    with ProgressDisplay(Console(file=io.StringIO())) as display:
        display.show(HALF_WAY)
    assert len(log_lines(caplog)) == 1


@pytest.mark.parametrize("width", [60, 200])
def test_a_terminal_gets_a_display_and_no_log(caplog: pytest.LogCaptureFixture, width: int) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.monitoring.progress")
    screen = io.StringIO()
    with ProgressDisplay(Console(file=screen, force_terminal=True, width=width)) as display:
        display.show(replace(HALF_WAY, actors_up=0, actors_starting=2, seconds=0.0))
        display.show(HALF_WAY)
    drawn = screen.getvalue()
    assert "50%" in drawn
    assert "1,000/2,000 rows, ETA 3:20" in drawn
    assert "5.0 rows/s, 500 tokens/s, 97.5% accepted, 2 actors up" in drawn
    assert log_lines(caplog) == []


def test_a_terminal_whose_log_is_for_machines_gets_no_display() -> None:
    screen = io.StringIO()
    with ProgressDisplay(Console(file=screen, force_terminal=True), live=False) as display:
        display.show(HALF_WAY)
    assert screen.getvalue() == ""
