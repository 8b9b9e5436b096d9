"""The command dedupe: what it prints, writes and refuses."""

import json
import sys
from pathlib import Path

import pytest

from magpie_ray.cli import program
from magpie_ray.curation import lexical


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["magpie-ray", *arguments])
    with pytest.raises(SystemExit) as exit_:
        program.main()
    return int(exit_.value.code or 0)


@pytest.fixture
def source(tmp_path: Path) -> str:
    texts = ["Write a poem", "What is 12 x 7?", "write a POEM!", "What is 12 x 8?"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in texts))
    return str(path)


def test_dedupe_marks_rows_and_says_how_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, source: str
) -> None:
    marked = str(tmp_path / "marked")
    assert run(monkeypatch, "dedupe", source, marked, "--against", source) == 0
    out = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert out[0].startswith("4  rows in ")
    assert out[1:] == [
        "3  rows to keep (repeat_count = 0)",
        "1  rows that repeat one of these",
        "4  rows that are near another set (against_distance)",
    ]
    assert run(monkeypatch, "verify", marked) == 0
    assert (tmp_path / "marked" / "README.md").exists()
    capsys.readouterr()
    assert run(monkeypatch, "dedupe", source, marked, "--against", source) == 0
    assert "Nothing to do" in capsys.readouterr().out


def test_dedupe_refuses_other_settings_and_sources_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, source: str
) -> None:
    marked = str(tmp_path / "marked")
    assert run(monkeypatch, "dedupe", source, marked) == 0
    assert run(monkeypatch, "dedupe", source, marked, "--of", "conversation") == 2
    assert 'of: the build has "instruction", now "conversation"' in capsys.readouterr().err
    assert run(monkeypatch, "dedupe", str(tmp_path / "nowhere"), marked) == 2
    assert "SOURCE" in capsys.readouterr().err
    assert run(monkeypatch, "dedupe", source, marked, "--distance", "2") == 2
    assert "--distance: got 2, must be between 0 and 0.2" in capsys.readouterr().err


def test_an_interrupted_dedupe_leaves_the_output_for_the_same_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, source: str
) -> None:
    marked = tmp_path / "marked"

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lexical, "find_neighbours", interrupted)
        assert run(patch, "dedupe", source, str(marked)) == 3
    assert "the same command" in capsys.readouterr().err
    assert not (marked / "_SUCCESS").exists()
    assert run(monkeypatch, "dedupe", source, str(marked)) == 0
    assert (marked / "_SUCCESS").exists()
