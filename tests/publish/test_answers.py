"""What is made of a pass for others: its survey, card, report, exported lines and shown rows."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from magpie_ray.cli.views.rows import row_panel
from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import parse_as
from magpie_ray.counters import Tally
from magpie_ray.curation.select import SelectSpec, select
from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.answer_columns import answer_table
from magpie_ray.dataset.parquet import to_parquet
from magpie_ray.dataset.reader import instruction_of, read_rows, said_in
from magpie_ray.dataset.verify import verify
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.publish.card import write_card
from magpie_ray.publish.export import export
from magpie_ray.publish.report.report import read_facts, write_report
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Message, Row
from tests.support.sources import instructions, write_source

ASKED = [f"Question {n}?" for n in range(6)]


def message(role: str, text: str, tokens: int = 0) -> Message:
    return Message(
        role="user" if role == "user" else "assistant",
        text=text,
        finish_reason="stop",
        prompt_tokens=5 if tokens else 0,
        completion_tokens=tokens,
        reasoning="Hm." if tokens else "",
    )


def row_of(row_id: int, *answers: str | None) -> Row:
    """A row with these answers; None: it lacks one."""
    given = (message("user", ASKED[row_id]),)
    each = tuple(
        Row(
            row_id=row_id,
            messages=given if text is None else (*given, message("assistant", text, 7)),
            system_prompt=None,
            attempt=1 if text else 5,
            given=1,
        )
        for text in answers
    )
    if len(each) == 1:
        return each[0]
    return Row(row_id=row_id, messages=given, system_prompt=None, attempt=1, given=1, answers=each)


def pass_of(folder: Path, answers: list[tuple[str | None, ...]]) -> Storage:
    """A finished pass with these answers to its rows."""
    source = write_source(folder / "rows.jsonl", instructions(*ASKED[: len(answers)]))
    config = parse_as(
        AnswerConfig,
        {
            "source": {"path": str(source)},
            "n": len(answers[0]),
            "model": {"thinking": False},
            "sampling": {"assistant": {"temperature": 1.0}},
            "output": {"path": str(folder / "out")},
            "seed": 1,
        },
    )
    spec = resolve_build(config)
    storage = Storage(str(folder / "out"))
    record = build_record.open_build(storage, spec.record(8))
    run = run_records.start_run(storage, num_rows=len(answers), host="here", config={})
    rows = [row_of(row_id, *texts) for row_id, texts in enumerate(answers)]
    data, written = to_parquet(
        answer_table(rows, config, one_turn=True),
        compression="zstd",
        fingerprint=record.fingerprint,
        run=1,
        tally=Tally.sum(Tally.of_row(row) for row in rows),
    )
    storage.create(written.partition.key, data)
    run_records.end_run(storage, run, outcome="complete")
    manifest.write_manifest(storage, record, [written], num_rows=len(answers))
    manifest.mark_complete(storage)
    return storage


def selection(folder: Path, of: Storage, sql: str) -> Storage:
    """What the query over the table `rows` returns, as a data set."""
    taken = Storage(str(folder))
    select(taken, SelectSpec(sources={"rows": of.url}, sql=sql, storage_options={}))
    return taken


@pytest.fixture
def several(tmp_path: Path) -> Storage:
    return pass_of(tmp_path, [("Yes.", "No."), ("Maybe.", None), (None, None), ("A.", "B."), ("C.", "D.")])


@pytest.fixture
def single(tmp_path: Path) -> Storage:
    return pass_of(tmp_path, [("Yes.",), (None,), ("No.",)])


def test_a_pass_verifies(several: Storage) -> None:
    found = verify(several)
    assert found.ok, found.problems
    [record] = found.records
    assert (record.rows, record.further, record.unanswered) == (5, 5, 3)


def test_the_report_counts_answers(several: Storage, tmp_path: Path) -> None:
    facts = read_facts(several)
    assert facts.survey.tokens == {("assistant", 1): {7: 4}, ("assistant", 2): {7: 3}}
    assert facts.survey.characters[("assistant", 1)] == {4: 1, 6: 1, 2: 2}
    assert facts.survey.attempts == {1: 7, 5: 3}
    assert facts.tally.attempts == 7
    assert facts.accepted == 1.0
    write_report(several)
    page = several.read("_magpie/report.html").decode()
    assert "2 answers to each instruction by builtin:tiny-chat" in page
    assert "(no answer was accepted)" in page
    assert "Question 0?" in page


def test_the_survey_of_single_answers_knows_what_was_given(single: Storage) -> None:
    survey = read_facts(single).survey
    assert survey.tokens == {("assistant", 1): {7: 2}}
    assert survey.characters == {("assistant", 1): {4: 1, 3: 1}}
    assert survey.first_words == {("question", str(n)): 1 for n in range(3)}


@pytest.mark.parametrize(
    "columns",
    ["*", "* EXCLUDE (row_id, finish_reasons)", "* EXCLUDE (row_id, completion_tokens)", "conversation"],
)
@pytest.mark.parametrize("answers", ["several", "single"])
def test_a_selection_of_answers_has_a_report(
    request: pytest.FixtureRequest, tmp_path: Path, answers: str, columns: str
) -> None:
    passed: Storage = request.getfixturevalue(answers)
    taken = selection(tmp_path / "taken", passed, f"SELECT {columns} FROM rows")
    write_report(taken)
    page = taken.read("_magpie/report.html").decode()
    assert "Question 0?" in page


@pytest.mark.parametrize("answers", ["several", "single"])
def test_a_selection_of_answers_is_surveyed_as_their_pass_is(
    request: pytest.FixtureRequest, tmp_path: Path, answers: str
) -> None:
    passed: Storage = request.getfixturevalue(answers)
    taken = selection(tmp_path / "taken", passed, "SELECT * FROM rows")
    found, expected = read_facts(taken).survey, read_facts(passed).survey
    assert found.tokens == expected.tokens
    assert found.characters == expected.characters
    assert found.finish_reasons == expected.finish_reasons
    assert found.first_words == expected.first_words


def test_an_answer_that_no_row_has_leaves_the_report_whole(tmp_path: Path) -> None:
    passed = pass_of(tmp_path, [("Yes.", None), ("No.", None)])
    write_report(passed)
    assert "assistant, turn 2" not in passed.read("_magpie/report.html").decode()


def test_the_card_says_what_was_answered(several: Storage, tmp_path: Path) -> None:
    write_card(several)
    card = several.read("README.md").decode()
    assert "# Answers by builtin:tiny-chat" in card
    assert "with 2 answers by `builtin:tiny-chat`" in card
    assert str(tmp_path / "rows.jsonl") in card
    assert "| `responses` | `list<string>` | the answers; null in the place" in card


def test_each_answer_is_a_line_and_what_is_lacking_is_left_out(several: Storage, tmp_path: Path) -> None:
    assert export(several, "messages", str(tmp_path / "all.jsonl")) == 7
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [line["row_id"] for line in lines] == [0, 0, 1, 3, 3, 4, 4]
    assert lines[1]["messages"] == [
        {"role": "user", "content": "Question 0?"},
        {"role": "assistant", "content": "No."},
    ]
    assert export(several, "alpaca", str(tmp_path / "alpaca.jsonl")) == 7


def test_an_unanswered_row_is_no_line(single: Storage, tmp_path: Path) -> None:
    assert export(single, "messages", str(tmp_path / "all.jsonl")) == 2


def test_rows_show_all_of_their_answers(several: Storage) -> None:
    rows = list(read_rows(several))
    assert [said.text for said in said_in(rows[1])] == ["Question 1?", "Maybe.", None]
    assert [said.tokens for said in said_in(rows[1])] == [None, 7, None]
    assert instruction_of(rows[2]) == "Question 2?"
    assert "no answer was accepted" in str(row_panel(rows[1]).renderable.renderables)  # type: ignore[attr-defined]
    assert pa.Table.from_pylist(rows).num_rows == 5
