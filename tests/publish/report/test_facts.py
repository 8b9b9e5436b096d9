"""The figures of a report: runs laid one after the other, shares against weights."""

from dataclasses import replace

import pytest

from magpie_ray.dataset.layout import REPORT_KEY
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.report.page import render
from magpie_ray.publish.report.report import read_facts, write_report
from tests.support.builds import complete_build, config_of, memory_storage
from tests.support.html_elements import Elements
from tests.support.report_builds import PROMPTS


def test_runs_are_laid_one_after_the_other_and_files_fall_into_theirs(facts: Facts) -> None:
    assert [(s.begin, s.seconds) for s in facts.stretches] == [(0, 4500), (4500, 4500), (9000, 4500)]
    assert len(facts.commits) == 30
    for at, record in facts.commits:
        begin = facts.stretches[record.run - 1].begin
        assert begin + 600 <= at <= begin + 4200


def test_tokens_count_when_they_were_generated(facts: Facts) -> None:
    assert sum(span.tokens for span in facts.bins) == pytest.approx(3 * 12_000)
    assert sum(span.seconds for span in facts.bins) == pytest.approx(facts.seconds)
    first, second = facts.bins[:2]  # of the first run
    assert (first.begin, first.end, second.end) == (0, 2250, 4500)
    assert first.tokens == pytest.approx(9000 * (2250 - 600) / 1800)
    assert first.tokens + second.tokens == pytest.approx(12_000)


def test_where_a_run_did_not_record_its_tokens_no_rates_are_told(facts: Facts) -> None:
    without = {2: replace(facts.histories[2], generated=())}
    assert replace(facts, histories={**facts.histories, **without}).bins == ()


def test_rejected_attempts_are_told_by_role_and_turn(facts: Facts) -> None:
    assert facts.rejected_at == [("user", 1, 60), ("assistant", 1, 30)]
    assert "user, turn 1" in render(facts, {})
    old = replace(facts, records=[replace(facts.records[0], rejected_at=()), *facts.records[1:]])
    assert old.rejected_at == ()


def test_of_a_copied_build_no_times_are_told(facts: Facts) -> None:
    later = {key: at + 10**6 for key, at in facts.written.items()}
    copied = replace(facts, written=later)
    assert copied.commits == ()
    assert "they were copied since" in render(copied, {})


def test_prompts_stand_against_their_weights(facts: Facts) -> None:
    shares = {share.name: share for share in facts.prompts}
    assert list(shares) == [prompt.key for prompt in PROMPTS]
    assert sum(share.rows for share in facts.prompts) == 240
    for share in facts.prompts:
        assert share.share == pytest.approx(share.weight, abs=0.12)


def test_settings_that_rows_chose_from_stand_against_their_weights() -> None:
    storage = memory_storage()
    user = [
        {"temperature": 1.0, "first_tokens": {"ban": ["#"]}, "weight": 3},
        {"temperature": 0.7, "weight": 1},
    ]
    config = config_of(sampling={"user": user, "assistant": [{}, {"max_tokens": 9}]})
    complete_build(storage, config=config)
    shares = read_facts(storage).samplings
    assert [(share.name, share.rows, share.weight) for share in shares] == [
        ("0", 10, 0.375),
        ("1", 0, 0.375),
        ("2", 0, 0.125),
        ("3", 0, 0.125),
    ]
    assert shares[1].text == 'user.temperature 1.0, user.first_tokens.ban ["#"], assistant.max_tokens 9'
    write_report(storage)
    assert shares[3].text in " ".join(Elements(storage.read(REPORT_KEY).decode()).texts)
