"""The command dedupe: what it prints, writes and refuses."""

import json
from pathlib import Path

import pytest

from magpie_ray.curation import lexical
from tests.support.command_line import Run


@pytest.fixture
def source(tmp_path: Path) -> str:
    texts = ["Write a poem", "What is 12 x 7?", "write a POEM!", "What is 12 x 8?"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in texts))
    return str(path)


def test_dedupe_marks_rows_and_says_how_many(run: Run, tmp_path: Path, source: str) -> None:
    marked = str(tmp_path / "marked")
    code, out, _ = run("dedupe", source, marked, "--against", source)
    assert code == 0
    first, *others = [line.strip() for line in out.splitlines()]
    assert first.startswith("4  rows in ")
    assert others == [
        "3  rows to keep (repeat_count = 0)",
        "1  rows that repeat one of these",
        "4  rows that are near another set (against_distance)",
    ]
    assert run("verify", marked).code == 0
    assert (tmp_path / "marked" / "README.md").exists()
    code, out, _ = run("dedupe", source, marked, "--against", source)
    assert code == 0
    assert "Nothing to do" in out


@pytest.mark.parametrize(
    ("source_at", "options", "told"),
    [
        ("rows.jsonl", ["--of", "conversation"], 'of: the build has "instruction", now "conversation"'),
        ("nowhere", [], "SOURCE"),
        ("rows.jsonl", ["--distance", "2"], "--distance: got 2, must be between 0 and 0.2"),
    ],
)
def test_dedupe_refuses_other_settings_and_sources_that_are_not_there(
    run: Run, tmp_path: Path, source: str, source_at: str, options: list[str], told: str
) -> None:
    marked = str(tmp_path / "marked")
    assert run("dedupe", source, marked).code == 0
    code, _, err = run("dedupe", str(tmp_path / source_at), marked, *options)
    assert code == 2
    assert told in err


def test_an_interrupted_dedupe_leaves_the_output_for_the_same_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    marked = tmp_path / "marked"

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lexical, "find_neighbours", interrupted)
        code, _, err = run("dedupe", source, str(marked))
    assert code == 3
    assert "the same command" in err
    assert not (marked / "_SUCCESS").exists()
    assert run("dedupe", source, str(marked)).code == 0
    assert (marked / "_SUCCESS").exists()
