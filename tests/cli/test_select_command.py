"""The command select, and the pairs of export: what they print, and their exit codes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.curation.select import SelectSpec, select
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build
from tests.support.command_line import Run


@pytest.fixture
def build(tmp_path: Path) -> str:
    complete_build(Storage(str(tmp_path / "build")))
    return str(tmp_path / "build")


def test_a_selection_is_made_once_and_can_be_verified_shown_and_exported(
    run: Run, build: str, tmp_path: Path
) -> None:
    command = ["select", str(tmp_path / "odd"), "--from", f"rows={build}"]
    command += ["--sql", "SELECT * FROM rows WHERE row_id % 2 = 1"]
    code, out, _ = run(*command, "--dry-run")
    assert code == 0
    assert out.startswith("5 rows, ")
    assert "  source_row_id: int64\n" in out
    assert out.count('"row_id": ') == 5
    assert not (tmp_path / "odd").exists()
    code, out, _ = run(*command)
    assert (code, out.splitlines()[0]) == (0, f"5 rows in {tmp_path}/odd")
    assert [line.strip() for line in out.splitlines()[1:6]] == [
        "10  rows in rows",
        "10  rows before WHERE",
        "5  fail (row_id % 2) = 1: 5 of them nothing else",
        "5  rows meet all conditions",
        "5  rows returned",
    ]
    assert "Nothing to do" in run(*command)[1]
    code, _, err = run(*command[:-1], "SELECT * FROM rows")
    assert code == 2
    assert "sql: the build has" in err
    assert run("verify", str(tmp_path / "odd"))[0] == 0
    said = run("status", str(tmp_path / "odd"))[1]
    assert "rows        5 of 5 committed" in said
    assert "tokens" not in said  # no model was asked
    assert "row 4 " in run("show", str(tmp_path / "odd"), "--where", "source_row_id = 9")[1]
    assert "Selected Magpie rows" in (tmp_path / "odd" / "README.md").read_text()
    target = str(tmp_path / "rows.jsonl")
    assert run("export", str(tmp_path / "odd"), target, "--to", "messages", "--where", "row_id < 3")[:2] == (
        0,
        f"3 rows in {target}\n",
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "rows=BUILD", "--sql", "SELECT atempt FROM rows"], "rows: row_id, conversation"),
        (["--from", "BUILD", "--sql", "SELECT 1"], "must be NAME=PATH"),
        (["--from", "rows=BUILD", "--sql", "none.sql"], "can't be read as a file"),
        (["--from", "rows=BUILD", "--sql", "DROP VIEW rows"], "must be one SELECT, not DROP"),
        (["--from", "rows=nowhere", "--sql", "SELECT 1"], "there is no such file or folder"),
        (["--from", "rows=BUILD", "--sql", "FROM rows", "--memory", "x"], "--memory: got 'x'"),
        (["--from", "rows=BUILD", "--sql", "FROM rows", "--rows-per-file", "0"], "--rows-per-file"),
        (["--sql", "SELECT 1"], "Missing option '--from'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    run: Run, build: str, tmp_path: Path, arguments: list[str], says: str
) -> None:
    typed = [argument.replace("BUILD", build) for argument in arguments]
    code, _, err = run("select", str(tmp_path / "new"), *typed)
    assert code == 2
    assert says in " ".join(err.split())
    assert not (tmp_path / "new").exists()


def answers(folder: Path) -> str:
    """A data set with two answers a row; of four rows the last has equal rewards."""
    rows = {
        "conversation": [[{"role": "user", "content": f"Why {n}?"}] for n in range(4)],
        "responses": [["Because.", "No."]] * 4,
        "instruct_reward": [[2.0, 1.0]] * 3 + [[1.0, 1.0]],
    }
    pq.write_table(pa.table(rows), folder / "answers.parquet")
    spec = SelectSpec(sources={"rows": str(folder / "answers.parquet")}, sql="FROM rows", storage_options={})
    select(Storage(str(folder / "answers")), spec)
    return str(folder / "answers")


def test_preference_pairs_are_counted_with_the_rows_that_are_none(run: Run, tmp_path: Path) -> None:
    place, target = answers(tmp_path), tmp_path / "pairs.jsonl"
    code, out, _ = run("export", place, str(target), "--to", "preference")
    assert code == 0
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "4 rows",
        f"3 pairs in {target}",
        "1 rows left out: equal rewards",
    ]
    assert json.loads(target.read_text().splitlines()[0])["chosen"] == [
        {"role": "assistant", "content": "Because."}
    ]
    out = run("export", place, str(target), "--to", "preference", "--force", "--where", "row_id = 1")[1]
    assert "1  pairs in" in out
    scored = run(
        "export", place, str(target), "--to", "preference", "--force", "--scores", place, "--margin", "2"
    )
    assert "3  rows left out: below the margin" in scored[1]


def test_pairs_of_other_data_sets_are_refused(run: Run, build: str, tmp_path: Path) -> None:
    target = str(tmp_path / "pairs.jsonl")
    code, _, err = run("export", build, target, "--to", "preference")
    assert (code, "has no column responses" in err) == (2, True)
    code, _, err = run("export", build, target, "--to", "messages", "--margin", "1")
    assert (code, "go with preference" in " ".join(err.split())) == (2, True)
    assert not Path(target).exists()


# Where the tests run in the background of a shell, the signal is ignored.
HEARS_CTRL_C = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from magpie_ray.cli.program import main
main()
"""


@pytest.mark.slow
def test_ctrl_c_ends_a_query_and_the_same_command_begins_anew(build: str, tmp_path: Path) -> None:
    sql = "SELECT sum(a.range * b.range % 7) AS n FROM rows, range(10000000) a, range(10000000) b"
    command = [sys.executable, "-c", HEARS_CTRL_C, "select", str(tmp_path / "new"), "--from", f"rows={build}"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [*command, "--sql", sql], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        while not list(temporary.glob("magpie-ray-sql-*")):  # until the query is about to run
            assert process.poll() is None
        work = psutil.Process(process.pid)
        begun = work.cpu_times().user
        while work.cpu_times().user < begun + 0.3:  # until it runs
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert err.startswith("error: interrupted")
    assert not list(temporary.iterdir())
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
