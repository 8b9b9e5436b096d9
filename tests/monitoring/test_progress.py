"""What a job shows of its progress."""

import errno
import io
import logging
import re
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from magpie_ray.coordinator.watcher import Snapshot
from magpie_ray.counters import Tally
from magpie_ray.monitoring.progress import ProgressDisplay, line
from magpie_ray.utils.logs import terminal
from tests.support.notebook import use_notebook

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
    assert line(HALF_WAY) == f"{text}, 1 waiting"
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
        "nodes_left_alone": [],
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
    now = [0.0]
    console = Console(file=screen, force_terminal=True, width=width)
    with ProgressDisplay(console, clock=lambda: now[0]) as display:
        display.show(HALF_WAY)
        now[0] = 90.0
        display.show(HALF_WAY)
    drawn = screen.getvalue()
    assert "1:30" in drawn
    assert "50%" in drawn
    assert "1,000/2,000 rows, ETA 3:20" in drawn
    assert "5.0 rows/s, 500 tokens/s, 97.5% accepted, 2 actors" in drawn
    assert log_lines(caplog) == []


LARGE = replace(
    HALF_WAY,
    num_rows=100_000_000,
    rows=99_000_000,
    rows_this_run=10_000_000,
    seconds=3_600_000.0,
    actors_up=1000,
    actors_starting=100,
    actors_wanted=1200,
    lost=10,
)


def test_on_80_columns_no_word_of_the_display_is_cut() -> None:
    screen = io.StringIO()
    with ProgressDisplay(Console(file=screen, force_terminal=True, width=80)) as display:
        display.show(LARGE)
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "…" not in drawn
    said = " ".join(drawn.split())
    for words in (*line(LARGE).split(", "), "elapsed"):
        assert words in said


def test_before_the_first_row_the_stage_is_shown_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.monitoring.progress")
    now, start = [0.0], replace(HALF_WAY, rows=0, rows_this_run=0, generated=Tally(), seconds=0.0)
    waiting = replace(start, actors_up=0)
    loading, first_round = replace(waiting, actors_starting=1), replace(start, seconds=1.0)
    with ProgressDisplay(Console(file=io.StringIO()), log_seconds=1.0, clock=lambda: now[0]) as display:
        for snapshot in (waiting, loading, loading, first_round, HALF_WAY):
            display.show(snapshot)
            now[0] += 30.0
    assert [text.split(", ")[1:3] for text in log_lines(caplog)] == [
        ["starting actors", "0:00"],
        ["loading the model", "0:00"],
        ["loading the model", "0:30"],
        ["first round", "0:00"],
        ["5.0 rows/s", "500 tokens/s"],
    ]


def test_behind_the_last_row_it_says_what_it_waits_for_and_ends_with_the_rates(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.monitoring.progress")
    now, all_rows = [0.0], replace(HALF_WAY, rows=2000)
    ending = replace(all_rows, committed_rows=2000)
    with ProgressDisplay(Console(file=io.StringIO()), log_seconds=1.0, clock=lambda: now[0]) as display:
        for snapshot in (all_rows, ending, ending):
            display.show(snapshot)
            now[0] += 20.0
        now[0] -= 20.0
        display.show(ending)
    assert [text.split(", ")[1:3] for text in log_lines(caplog)] == [
        ["waiting for the last files", "0:00"],
        ["waiting for actors to leave", "0:00"],
        ["waiting for actors to leave", "0:20"],
        ["5.0 rows/s", "500 tokens/s"],
    ]


def test_a_terminal_says_when_only_the_report_is_left_and_for_how_long() -> None:
    screen, now = io.StringIO(), [0.0]
    console = Console(file=screen, force_terminal=True, width=100)
    with ProgressDisplay(console, clock=lambda: now[0]) as display:
        display.show(replace(HALF_WAY, rows=2000, committed_rows=2000))
        display.note_last()
        now[0] = 7.0
        console.print("a line above")
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "writing the report, the card and the last records, 0:07 elapsed" in drawn
    assert "500 tokens/s" in drawn.splitlines()[-1]


def test_in_a_notebook_a_line_below_the_cell_changes_in_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.monitoring.progress")
    lines, now = use_notebook(monkeypatch), [0.0]
    console = Console(file=io.StringIO(), force_jupyter=True)
    with ProgressDisplay(console, clock=lambda: now[0]) as display:
        for rows in (1000, 1001, 1002, 1003):
            display.show(replace(HALF_WAY, rows=rows))
            now[0] += 0.6
    assert [line.split("/")[0] for line in lines] == ["1,000", "1,002", "1,003"]
    assert log_lines(caplog) == []


def test_the_rows_shown_never_become_fewer_though_an_actor_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="magpie_ray.monitoring.progress")
    with ProgressDisplay(Console(file=io.StringIO()), log_seconds=0.0) as display:
        for rows in (500, 402, 501):
            display.show(replace(HALF_WAY, rows=rows))
    assert [text.split("/")[0] for text in log_lines(caplog)] == ["500", "500", "501"]


class Terminal(io.StringIO):
    """Standard error that is a terminal, until somebody closes it."""

    gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


def test_a_terminal_that_is_closed_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with ProgressDisplay(terminal.__wrapped__()) as display:
        display.show(HALF_WAY)
        sys.stderr.write("a line of a library's\n")
        screen.gone = True
        display.show(HALF_WAY)
        sys.stderr.write("another\n")
    assert "a line of a library's" in screen.getvalue()


def test_a_terminal_whose_log_is_for_machines_gets_no_display() -> None:
    screen = io.StringIO()
    with ProgressDisplay(Console(file=screen, force_terminal=True), live=False) as display:
        display.show(HALF_WAY)
    assert screen.getvalue() == ""


def test_a_score_pass_tells_requests_and_the_share_of_rows_that_have_their_values() -> None:
    scored = Tally(rows=100, unanswered=4, rejected={"context_full": 4}, assistant_tokens=200)
    snapshot = replace(HALF_WAY, job="score", generated=scored, actors_wanted=2)
    assert ", 5.0 rows/s, 2 requests/s, 96% scored, " in line(snapshot)
