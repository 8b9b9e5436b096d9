"""The commands: what they print, where, and the exit codes they end in."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from magpie_ray.cli import options, printing
from magpie_ray.config.ready import ready_names
from magpie_ray.dataset.rejects import replace_sample
from magpie_ray.errors import EngineError, InterruptedJobError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition
from tests.support.builds import complete_build, refused
from tests.support.command_line import Outcome, Run
from tests.support.s3_server import S3Server

DESIGNED = {  # DESIGN.md, "Command line"
    "pre_query",
    "pre_query_ids",
    "pre_query_with_system",
    "user_to_assistant",
    "history_user_to_assistant",
    "next_user",
    "user_stop_token_ids",
    "assistant_stop_token_ids",
    "stop_strings",
    "date",
    "warnings",
}


@pytest.fixture
def output(tmp_path: Path) -> str:
    complete_build(Storage(str(tmp_path / "out")))
    return str(tmp_path / "out")


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(f"num_rows: 10\noutput: {{path: {tmp_path}/new, rows_per_partition: 4}}\n")
    return str(path)


# ---- help


@pytest.mark.parametrize(
    "command",
    [
        "init",
        "generate",
        "plan",
        "preview",
        "template",
        "status",
        "verify",
        "show",
        "report",
        "export",
        "push",
        "dedupe",
        "select",
        "answer",
        "score",
    ],
)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: magpie-ray {command} [OPTIONS] ")
    for line in out.splitlines():
        assert len(line) <= 80
        if line.startswith(("  -", "  CONFIG", "  FILE", "  KEY", "  NAME", "  MODEL", "  OUTPUT")):
            assert line.rstrip().endswith((".", "]")) or "  " in line.strip(), (
                line
            )  # everything has a help text
    assert "<bool>" not in out


def test_the_first_help_lists_the_commands(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("init", "generate", "plan", "template", "status", "verify", "show"):
        assert f"\n  {command} " in out
    assert run("--version").out == "0.1.0\n"


# ---- exit codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "CONFIG", "num_rows=ten"], "num_rows"),
        (["plan", "CONFIG", "nmu_rows=10"], "nmu_rows"),
        (["plan", "CONFIG", "output.path=s4://bucket/x"], "unknown scheme"),
        (["plan", "CONFIG", "model.name=builtin:huge"], "builtin:huge"),
        (["plan", "missing.yaml"], "no such config file"),
        (
            ["plan", "smollm"],
            "smollm: there is no such config file; . has config.yaml; the ready configs are smollm2",
        ),
        (["init", "smollm"], "there is no ready config 'smollm'; there are smollm2, "),
        (["init", "demo", "config.yaml"], "config.yaml: is there already and stays as it is"),
        (["status", "nowhere"], "holds no build"),
        (["verify", "nowhere"], "holds no build"),
        (["show", "nowhere"], "holds no build"),
        (["status", "nowhere", "--storage-option", "anon"], "key=value"),
        (["template", "./missing"], "there is no folder"),
        (["plan"], "Missing argument"),
        (["plan", "CONFIG", "--gpu", "H1000"], "--gpu: got 'H1000'; did you mean"),
        (["plan", "CONFIG", "--sample", "soon"], "--sample: got 'soon', must be a time such as 60s"),
        (["plan", "CONFIG", "--sample", "0s"], "--sample: got '0s'"),
        (["plan", "CONFIG", "--tokens-per-second", "0"], "--tokens-per-second"),
        (["build", "CONFIG"], "No such command"),
        (["show", "nowhere", "--rows", "0"], "--rows"),
        (["status", "nowhere", "--jsno"], "No such option"),
    ],
)
def test_bad_usage_ends_in_2_with_a_message_and_no_traceback(
    run: Run, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(config if argument == "CONFIG" else argument for argument in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_the_ready_configs_are_a_line_each(run: Run) -> None:
    code, out, err = run("init")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    demo = next(line for line in lines if line.startswith("demo "))
    assert demo.split(None, 1)[1] == "A thousand two-turn rows of the bundled model, on a CPU."
    assert len(lines) == len(ready_names()) + 3
    assert max(map(len, lines)) <= 80


def test_a_ready_config_is_written_and_can_be_planned_by_its_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("init", "demo")
    assert (code, out) == (0, "demo.yaml: written\nnext: magpie-ray plan demo.yaml\n")
    (tmp_path / "demo.yaml").write_text((tmp_path / "demo.yaml").read_text().replace("1000", "1234"))
    planned = run("plan", "demo", "--json")
    assert planned.code == 0, planned.err
    assert json.loads(planned.out)["rows_pending"] == 1234
    assert caplog.messages[0] == "the config demo is the file demo.yaml in this folder"
    assert run("init", "demo.yaml").code == 2


def test_a_shell_completes_the_names_of_configs_beside_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo.yaml", "data.yaml", "other.yaml"):
        Path(name).touch()
    Path("drafts").mkdir()

    def completed(*words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "magpie_ray"],
            env=os.environ
            | {
                "_MAGPIE_RAY_COMPLETE": "complete_bash",
                "COMP_WORDS": " ".join(("magpie-ray", *words)),
                "COMP_CWORD": str(len(words)),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert completed("init", "d") == ["demo"]
    assert completed("generate", "d") == ["demo", "data.yaml", "demo.yaml", "drafts"]
    assert completed("plan", "ot") == []  # the shell's own: files
    assert "smollm2" in completed("preview", "")


def test_an_interrupt_ends_in_3(run: Run, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(options, "load_as", interrupted)
    assert run("generate", config).code == 3

    def stopped(*_: object) -> None:
        raise InterruptedJobError("stopped with 5 of 10 rows committed")

    monkeypatch.setattr(options, "load_as", stopped)
    assert run("generate", config) == Outcome(3, "", "error: stopped with 5 of 10 rows committed\n")


def test_messages_can_not_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    code, _, err = run("plan", str(tmp_path / "\x1b[2J:cat:[bold]"))
    assert code == 2
    assert r"\x1b[2J:cat:[bold]: there is no such config file" in err


@pytest.mark.parametrize("command", ["plan", "generate"])
def test_a_secret_on_the_command_line_is_warned_of_by_its_key(
    run: Run, config: str, caplog: pytest.LogCaptureFixture, command: str
) -> None:
    run(
        command,
        config,
        "output.path=nosuch://x",
        "output.storage_options={secret: hunter2hunter2, client_kwargs: {endpoint_url: http://minio}}",
        "engine.extra.hf_token=hunter2hunter2",
    )
    warned = [record.getMessage() for record in caplog.records if "command line" in record.getMessage()]
    assert [text.split()[0] for text in warned] == ["output.storage_options.secret", "engine.extra.hf_token"]
    assert all("in the environment, or in a YAML file" in text for text in warned)
    assert "hunter2" not in caplog.text


def test_secrets_in_the_file_are_not_warned_of(
    run: Run, config: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Path(config).open("a") as file:
        file.write("engine: {extra: {hf_token: hunter2hunter2}}\n")
    assert run("plan", config).code == 0
    assert not caplog.records


def test_a_failure_is_reported_without_the_errors_behind_it(
    run: Run, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        try:
            raise ValueError("input_value='hunter2'")
        except ValueError as exc:
            raise EngineError("vLLM could not start") from exc

    monkeypatch.setattr(options, "load_as", fail)
    assert run("generate", config) == Outcome(1, "", "error: vLLM could not start\n")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(28, "No space left on device", "/tmp/x"), "TMPDIR"),
        (OSError(24, "Too many open files", "/tmp/x"), "ulimit -n"),
    ],
)
def test_a_limit_of_the_machine_is_one_line_with_its_remedy(
    run: Run, config: str, monkeypatch: pytest.MonkeyPatch, error: OSError, remedy: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(options, "load_job", fail)
    outcome = run("plan", config)
    assert outcome.code == 1
    [line] = outcome.err.splitlines()
    assert line.startswith(f"error: {error}. ")
    assert remedy in line


# ---- plan and template


def test_a_plan_is_printed_for_people_and_for_programs(run: Run, config: str) -> None:
    code, out, err = run("plan", config, "n_turns=2", "--full")
    assert (code, err) == (0, "")
    assert "new build" in out
    assert "3 of up to 4 rows" in out
    assert "assumed       engine.device" in out
    assert "multi-round conversation" in out
    fields = json.loads(run("plan", config, "num_rows=105", "--json").out)
    assert (fields["rows_pending"], fields["partitions_pending"]) == (105, 27)


def test_a_plan_of_another_config_is_refused(run: Run, output: str, config: str) -> None:
    code, out, err = run("plan", config, f"output.path={output}")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {output} holds a build made with other settings:\n")


def test_a_template_has_all_fields_that_were_promised(run: Run) -> None:
    fields = json.loads(run("template", "builtin:tiny-chat", "--json").out)
    assert set(fields) >= DESIGNED
    assert fields["pre_query"].endswith("<|start_header_id|>user<|end_header_id|>\n\n")
    assert fields["pre_query_ids"].count(1) == 1
    assert fields["date"] is None
    fields = json.loads(run("template", "builtin:tiny-chat", "--system", "topic: cats", "--json").out)
    assert "topic: cats" in fields["pre_query_with_system"]
    out = run("template", "builtin:tiny-chat").out
    assert "pre-query         <|begin_of_text|>" in out
    assert "user stops" in out


# ---- status, verify and show


def test_a_status_is_printed_for_people_and_for_programs(run: Run, output: str) -> None:
    code, out, _ = run("status", output)
    assert code == 0
    assert out.startswith(f"{output}: complete\nrows        10 of 10 committed (100%)\n")
    fields = json.loads(run("status", output, "--json").out)
    assert (fields["complete"], fields["rows"], fields["runs"][0]["outcome"]) == (True, 10, "done")


def test_a_watched_status_ends_with_the_build_and_with_ctrl_c(
    run: Run, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run("status", output, "--watch")
    assert code == 0
    assert "10 of 10 committed" in out
    Storage(output).delete("_SUCCESS")
    naps = []

    def interrupted(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(printing.time, "sleep", interrupted)
    assert run("status", output, "--watch").code == 0
    assert len(naps) == 3
    assert run("status", output, "--watch", "--json").code == 2


def test_verify_ends_in_0_or_1_and_says_why(run: Run, output: str) -> None:
    assert run("verify", output).code == run("verify", output, "--quick").code == 0
    assert json.loads(run("verify", output, "--json").out)["ok"] is True
    Path(output, "data", "part-000000000004.parquet").unlink()
    code, out, _ = run("verify", output)
    assert code == 1
    assert "rows 4..7 of 0..9 are missing" in out
    code, out, _ = run("verify", output, "--json")
    assert (code, json.loads(out)["ok"], len(json.loads(out)["problems"])) == (1, False, 2)


def test_show_prints_the_rows_that_were_asked_for(run: Run, output: str) -> None:
    assert [f"row {i} " in run("show", output).out for i in range(4)] == [True, True, True, False]
    out = run("show", output, "--row", "7", "-n", "2").out
    assert [f"row {i} " in out for i in range(6, 10)] == [False, True, True, False]
    assert "Because." in out
    assert [f"row {i} " in run("show", output, "--row", "7").out for i in (6, 7, 8)] == [False, True, False]
    code, out, _ = run("show", output, "--row", "10")
    assert (code, out) == (0, f"{output} has no rows like that.\n")


def test_show_has_the_rows_for_which_all_conditions_hold(run: Run, output: str) -> None:
    out = run("show", output, "--where", "finish_reasons[1] = 'stop' AND row_id = 5").out
    assert [f"row {i} " in out for i in (4, 5, 6)] == [False, True, False]
    assert "no rows like that" in run("show", output, "--where", "attempt=2").out
    code, _, err = run("show", output, "--where", "atempt=2")
    assert code == 2
    assert "rows: row_id, conversation" in err
    assert "row 5 " in run("show", output, "--row", "5", "--where", "attempt=1").out
    assert "no rows like that" in run("show", output, "--row", "5", "--where", "attempt=2").out


def test_show_has_what_was_rejected_and_why(run: Run, output: str) -> None:
    replace_sample(Storage(output), Partition(start=4, stop=8), [refused(row_id=5, attempt=2)])
    for selection in (["--rejects"], ["--reason", "refusal"], ["--rejects", "--where", "role = 'user'"]):
        out = run("show", output, *selection).out
        assert "refusal: row 5, attempt 2, turn 1" in out
        assert "No." in out
    code, _, err = run("show", output, "--reason", "empty")
    assert code == 2
    assert "there are refusal" in err
    assert "no rejects like that" in run("show", output, "--rejects", "--row", "6").out


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("verify OUTPUT", "reading every byte of"),
        ("status OUTPUT --json", "reading"),
        ("plan CONFIG", "reading builtin:tiny-chat and what is at the output"),
    ],
)
def test_a_command_at_a_terminal_says_what_it_is_at_while_it_lasts(
    tmp_path: Path, config: str, command: str, says: str
) -> None:
    complete_build(Storage(str(tmp_path / "out")))
    arguments = command.replace("OUTPUT", str(tmp_path / "out")).replace("CONFIG", config).split()
    program = [sys.executable, "-m", "magpie_ray", *arguments]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        told = b""
        with suppress(OSError):  # the end of a terminal
            while piece := os.read(ours, 4096):
                told += piece
        assert process.stdout is not None
        result = process.stdout.read()
    os.close(ours)
    assert says in told.decode()
    assert "0:00:0" in told.decode()
    assert result
    assert b"reading" not in result
    piped = subprocess.run(program, capture_output=True, check=False)
    assert piped.stdout
    assert b"reading" not in piped.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path / "out")), num_rows=4000, grid=2000)
    show = f"{sys.executable} -m magpie_ray show {tmp_path}/out -n 4000 | head -n 2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", show], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "141"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "is_text"),
    [
        ("status OUTPUT --watch", True),
        ("export OUTPUT - --to messages", True),
        ("verify OUTPUT", False),
        ("generate CONFIG --if-exists skip", False),
    ],
)
def test_what_a_command_has_done_stands_whether_or_not_it_can_be_told(
    output: str, config: str, command: str, is_text: bool
) -> None:
    """A full disk under standard output costs a command its text, a reader that has left nothing at all."""
    if command.startswith("generate"):  # the build is complete
        complete_build(Storage(output.replace("out", "new")))
    line = f"{sys.executable} -m magpie_ray {command.replace('OUTPUT', output).replace('CONFIG', config)}"
    full, closed, left = (
        subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=120, check=False)
        for shell in (f"{line} >/dev/full", f"{line} >&-", f"{{ {line}; echo $? >&2; }} | sleep 0")
    )
    assert full.returncode == is_text
    said, nothing, code = (
        [line for line in done.stderr.splitlines() if " INFO " not in line] for done in (full, closed, left)
    )
    assert said == ["error: standard output can't be written to: [Errno 28] No space left on device"]
    assert (closed.returncode, nothing) == (0, [])
    assert code in (["0"], ["141"])


@pytest.mark.parametrize("command", ["plan", "generate", "verify", "status"])
def test_in_a_directory_that_was_removed_a_command_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, err = run(command, "anything")
    assert (code, err) == (
        2,
        "error: the current directory was removed: change to another one, then try again\n",
    )


def test_show_prints_generated_text_as_text(run: Run, tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path / "out")), texts=["[bold]x[/bold]\x1b[2J", "\u202eevil :smile:"])
    out = run("show", str(tmp_path / "out"), "--rows", "1").out
    assert r"[bold]x[/bold]\x1b[2J" in out
    assert r"\u202eevil :smile:" in out
    assert "\x1b" not in out


def test_report_makes_the_page_again_and_says_where(run: Run, output: str) -> None:
    code, out, _ = run("report", output, "--price-per-gpu-hour", "2.5")
    assert (code, out) == (0, f"{output}/_magpie/report.html\n{output}/README.md\n")
    assert Path(output, "_magpie/report.html").read_text().startswith("<!doctype html>")
    fields = json.loads(run("report", output, "--json").out)
    assert fields == {
        "report": f"{output}/_magpie/report.html",
        "card": f"{output}/README.md",
        "advice": [],
        "diversity": [],  # of so few rows
    }


def test_report_refuses_what_is_no_build_and_what_is_no_price(run: Run, output: str, tmp_path: Path) -> None:
    code, _, err = run("report", str(tmp_path / "nothing"))
    assert (code, "holds no build" in err) == (2, True)
    assert list(tmp_path.glob("nothing*")) == []
    code, _, err = run("report", output, "--price-per-gpu-hour", "-1")
    assert (code, "--price-per-gpu-hour" in err) == (2, True)


def test_an_output_on_s3_is_reached_with_storage_options(run: Run, s3_server: S3Server) -> None:
    url = f"s3://{s3_server.bucket}/cli"
    complete_build(Storage(url, s3_server.storage_options))
    typed = []
    for option in (
        f"endpoint_url={s3_server.endpoint_url}",
        "key=testing-key-id",
        "secret=testing-secret-key",
        "client_kwargs.region_name=us-east-1",
    ):
        typed += ["--storage-option", option]
    assert run("verify", url, *typed).code == 0
    assert run("show", url, *typed).code == 0
    code, _, err = run("status", "s3://missing-bucket/x", *typed)
    assert code == 1
    assert "Create the bucket" in err
    assert "testing-secret" not in err


@pytest.mark.parametrize("store", ["azure", "gcs"])
def test_an_output_on_azure_or_gcs_is_read_by_every_command(
    run: Run, store: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = request.getfixturevalue(f"{store}_server")
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    url = f"{server.url}/cli"
    complete_build(Storage(url))
    assert run("verify", url).code == 0
    assert json.loads(run("status", url, "--json").out)["rows"] == 10
    assert "Why?" in run("show", url).out
    assert run("report", url).code == 0
    exported = tmp_path / "rows.jsonl"
    assert run("export", url, str(exported), "--to", "messages").code == 0
    assert len(exported.read_text().splitlines()) == 10
    code, _, err = run("status", f"{server.url}-missing/x")
    assert code != 0
    assert "AccountKey=Eby" not in err


# ---- builds on a schedule


def test_if_exists_is_one_of_three(run: Run, config: str) -> None:
    code, _, err = run("generate", config, "--if-exists", "perhaps")
    assert code == 2
    assert "--if-exists" in err
    assert "'resume', 'skip', 'fail'" in err.replace("\n", " ")


def test_latest_is_followed(run: Run, tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path / "2026-11-26")))
    (tmp_path / "latest.json").write_text(json.dumps({"path": str(tmp_path / "2026-11-26")}))
    for command in ("status", "verify", "show"):
        assert run(command, str(tmp_path / "latest")).code == 0
    assert run("status", str(tmp_path / "latest")).out.startswith(f"{tmp_path}/2026-11-26: complete")


# ---- in a process of its own


def test_the_installed_command_fails_without_a_traceback(config: str) -> None:
    command = [sys.executable, "jobs/generate.py", config, "num_rows=0", "sampling.user.temperatur=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "sampling.user.temperatur" in done.stderr
    assert "num_rows" in done.stderr
    assert "Traceback" not in done.stderr


def test_export_writes_a_file_or_standard_output(run: Run, output: str, tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    code, out, _ = run("export", output, str(target), "--to", "messages")
    assert (code, out) == (0, f"10 rows in {target}\n")
    assert target.read_text().count("\n") == 10
    code, _, err = run("export", output, str(target), "--to", "messages")
    assert code == 2
    assert "--force" in err
    code, _, err = run("export", output, "-", "--to", "parquet")
    assert code == 2


def test_export_of_a_build_that_is_not_complete_says_so(run: Run, output: str, tmp_path: Path) -> None:
    (Path(output) / "_SUCCESS").unlink()
    code, out, _ = run("export", output, str(tmp_path / "rows.jsonl"), "--to", "messages")
    assert code == 0
    assert out.startswith("10 rows in ")
    assert "the build is not complete" in out


def test_a_report_goes_to_a_file_and_into_a_browser(
    run: Run, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = tmp_path / "page.html"
    code, out, _ = run("report", output, "--to", str(page), "--open")
    assert (code, out, opened) == (0, f"{page}\n", [page.as_uri()])
    assert page.read_text().startswith("<!doctype html>")
    assert not Storage(output).exists("_magpie/report.html")
    code, out, err = run("report", output, "--to", str(tmp_path / "no" / "page.html"))
    assert (code, out) == (1, "")
    assert "page.html: can't be written to" in err
    code, _, err = run("report", "s3://bucket/out", "--open")
    assert code == 2
    assert "give --to FILE as well" in err
