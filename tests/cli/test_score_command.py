"""The command score, and what the commands that read a build say of its output."""

import json
from pathlib import Path

import pytest

from tests.publish.test_scores import LEVEL, level, pass_of
from tests.support.command_line import Run
from tests.support.sources import instructions, write_source


@pytest.fixture
def config(tmp_path: Path) -> str:
    source = write_source(tmp_path / "rows.jsonl", instructions("What?", "Why?", "Who?"))
    path = tmp_path / "scores.yaml"
    path.write_text(
        f"source: {{path: {source}}}\nengine: {{device: cpu}}\noutput: {{path: {tmp_path}/new}}\n"
        "columns: {level: {choice: [easy, hard], prompt: 'How hard is {instruction}'}}\n"
    )
    return str(path)


@pytest.fixture
def output(tmp_path: Path) -> str:
    values = [level("hard", 0.5), level("easy", 1.0), level(None)]
    pass_of(tmp_path, {"level": LEVEL}, values)
    return str(tmp_path / "out")


def test_the_command_explains_itself_and_is_listed(run: Run) -> None:
    code, out, err = run("score", "--help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: magpie-ray score [OPTIONS] ")
    assert "labels, rewards or embeddings" in out
    assert "\n  score " in run("--help")[1]


@pytest.mark.parametrize("command", ["generate", "answer"])
def test_another_command_names_the_one_that_the_config_is_for(run: Run, config: str, command: str) -> None:
    code, out, err = run(command, config)
    assert (code, out) == (2, "")
    assert err == f"error: {config}: `columns` makes this a pass: run `magpie-ray score` with it\n"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("columns.level.choice=[easy]", "columns.level.choice: got ['easy'], must have 2 to 100 labels"),
        ("columns.level.prompt=How hard?", "a text with a placeholder for the row"),
        ("model.thinking=true", "model.thinking: got true, must be false in a score pass"),
        ("sampling.assistant.temperature=1", "sampling"),
        ("columns={good: {reward: response}}", "columns of the kind reward need a reward model"),
        ("columns.level.prompt=Is {response} hard?", "needs the response of a row, and the first 3 rows of"),
        ("source.path=nowhere", "nowhere"),
    ],
)
def test_what_can_not_be_scored_is_refused_before_anything_is_made(
    run: Run, config: str, tmp_path: Path, override: str, said: str
) -> None:
    code, out, err = run("plan", config, override)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()


def test_a_plan_of_scores_is_printed_for_people_and_for_programs(run: Run, config: str) -> None:
    code, out, err = run("plan", config)
    assert (code, err) == (0, "")
    assert "source        3 rows in 1 file at" in out
    assert "How hard is What?" in out
    fields = json.loads(run("plan", config, "--json")[1])
    assert (fields["job"], fields["columns"]) == ("score", ["row_id", "level", "level_probability"])


def test_scores_are_shown_by_column_and_can_be_searched(run: Run, output: str) -> None:
    code, out, _ = run("show", output, "--no-pager", "--where", "level = 'hard'")
    assert code == 0
    assert "level: hard" in out
    assert "level_probability: 0.5" in out
    assert "row 1" not in out


def test_status_and_verify_speak_of_scores_as_of_any_build(run: Run, output: str) -> None:
    assert run("verify", output)[:2] == (
        0,
        f"{output}: 3 rows in 1 file, complete and consistent: row_id 0..2, each once\n",
    )
    status = json.loads(run("status", output, "--json")[1])
    assert (status["rows"], status["complete"], status["rejected"]) == (3, True, {"no_text": 1})


@pytest.mark.parametrize(
    ("format_name", "said"),
    [
        ("messages", "join it with its source by `magpie-ray select`"),
        ("preference", "has no column responses with several answers a row"),
    ],
)
def test_scores_alone_are_no_conversations_to_export(
    run: Run, output: str, tmp_path: Path, format_name: str, said: str
) -> None:
    code, _, err = run("export", output, str(tmp_path / "made.jsonl"), "--to", format_name)
    assert code == 2
    assert said in err
    assert not (tmp_path / "made.jsonl").exists()
