"""How a process logs, for people and for machines."""

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator

import pytest
from rich.console import Console

from magpie_ray.utils import logs
from magpie_ray.utils.logs import LogStyle


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Handlers, levels and hooks as they were."""
    root, ours = logging.getLogger(), logging.getLogger("magpie_ray")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield
    logs.set_up(LogStyle())
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def set_up(style: LogStyle) -> None:
    """As in a new process: pytest has handlers of its own."""
    logging.getLogger().handlers = []
    logs.set_up(style)


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_log_that_is_no_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogStyle())
    logging.getLogger("magpie_ray.job").info("a node has come", extra={"rows": 3})
    logging.getLogger("magpie_ray.job").debug("a detail")
    logging.getLogger("a.library").info("credentials found")
    logging.getLogger("a.library").warning("slow down")
    lines = told(capsys)
    assert [line.split(" ", 2)[2] for line in lines] == ["INFO a node has come", "WARNING slow down"]


def test_in_a_notebook_the_lines_of_a_job_stand_below_its_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "terminal", lambda: Console(file=io.StringIO(), force_jupyter=True))
    ours = logging.getLogger("magpie_ray")
    ours.setLevel(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)
    with logs.told_in_notebook():
        logging.getLogger("magpie_ray.job").info("starting Ray")
        logging.getLogger("magpie_ray.job").warning("slow down")
    logging.getLogger("magpie_ray.job").info("nobody asked")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["   0:00 starting Ray", "   0:00 warning: slow down"]
    assert captured.err == ""
    assert (ours.level, ours.propagate, ours.handlers) == (logging.NOTSET, True, [])


@pytest.mark.parametrize("in_notebook", [True, False])
def test_a_script_and_a_notebook_that_logs_get_no_lines_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_notebook: bool
) -> None:
    console = Console(file=io.StringIO(), force_jupyter=in_notebook)
    monkeypatch.setattr(logs, "terminal", lambda: console)
    logging.getLogger("magpie_ray").setLevel(logging.INFO if in_notebook else logging.NOTSET)
    with logs.told_in_notebook():
        logging.getLogger("magpie_ray.job").info("starting Ray")
    assert capsys.readouterr().out == ""


def test_on_a_terminal_a_line_has_the_time_since_the_start_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(logs, "terminal", lambda: Console(file=screen, force_terminal=True, width=80))
    set_up(LogStyle())
    logging.getLogger("magpie_ray.job").info("starting Ray")
    logging.getLogger("magpie_ray.job").warning("slow down")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert re.fullmatch(r" *\d+:\d\d starting Ray *", lines[0])
    assert re.fullmatch(r" *(\d+:\d\d)? warning: slow down *", lines[1])


def test_a_line_of_the_hub_s_client_comes_once(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogStyle())
    library = logging.getLogger("huggingface_hub")
    library.addHandler(logging.StreamHandler(sys.stderr))  # as its import does
    logging.getLogger("huggingface_hub.file_download").warning("unauthenticated")
    assert len(told(capsys)) == 1


def test_a_verbose_job_tells_details_and_what_libraries_do(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(LogStyle(verbose=True))
    logging.getLogger("magpie_ray.job").debug("a detail")
    logging.getLogger("a.library").info("credentials found")
    assert [line.split(" ", 2)[2] for line in told(capsys)] == ["DEBUG a detail", "INFO credentials found"]


def test_for_machines_everything_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger("some_library")
    library.addHandler(logging.StreamHandler(sys.stderr))
    library.propagate = False
    set_up(LogStyle(json=True))
    logs.take_over("some_library")
    logging.getLogger("magpie_ray.job").info("two\nlines \x1b[31m", extra={"rows": 3, "accepted": None})
    library.error("broken")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    try:
        raise RuntimeError("unforeseen")
    except RuntimeError as exc:
        sys.excepthook(RuntimeError, exc, exc.__traceback__)
    lines = told(capsys)
    assert "\x1b" not in "".join(lines)
    records = [json.loads(line) for line in lines]
    assert [record["logger"] for record in records] == [
        "magpie_ray.job",
        "some_library",
        "py.warnings",
        "magpie_ray",
    ]
    assert records[0]["message"] == "two\nlines \x1b[31m"
    assert (records[0]["level"], records[0]["rows"], records[0]["accepted"]) == ("INFO", 3, None)
    assert records[0]["time"].endswith("+00:00")
    assert records[3]["message"] == "RuntimeError: unforeseen"
    assert "Traceback" in records[3]["exception"]


def test_what_was_set_up_is_known_to_whoever_starts_other_processes() -> None:
    assert logs.current() == LogStyle()
    set_up(LogStyle(verbose=True, json=True))
    assert logs.current() == LogStyle(verbose=True, json=True)


def test_a_console_that_is_finalized_leaves_standard_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """As the interpreter does with it at its end, when there is nothing left to flush with."""
    terminal = logs.terminal()
    terminal.file.close()
    assert not terminal.file.closed
    terminal.print("still here")
    assert capsys.readouterr().err == "still here\n"
