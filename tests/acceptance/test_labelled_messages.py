"""How many of the labelled messages each rule rejects: bad ones, and good ones by mistake."""

import pytest

from tests.acceptance.labelled import RuleScores, load
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def scores() -> RuleScores:
    return RuleScores(load())


def test_there_are_enough_messages_of_each_kind(scores: RuleScores) -> None:
    bad = [message.reason for message in scores.messages if message.reason]
    assert len(bad) >= 300
    assert len(scores.messages) - len(bad) >= 300
    assert all(bad.count(rule) >= 20 for rule in scores.rules)


@pytest.mark.parametrize("held_out", [False, True])
def test_rules_find_what_they_exist_for_and_leave_good_messages_alone(
    scores: RuleScores, held_out: bool
) -> None:
    for rule in scores.rules:
        found, bad = scores.recall(rule, held_out=held_out)
        assert found >= 0.9 * bad, rule
        rejected, good = scores.false_rejects(rule, held_out=held_out)
        assert rejected <= max(1, 0.01 * good), rule
    rejected, good = scores.false_rejects(held_out=held_out)
    assert rejected <= 0.01 * good


def test_the_readme_shows_the_table_as_it_is(scores: RuleScores) -> None:
    table = scores.table()
    print(table)
    assert table in (ROOT / "docs/acceptance.md").read_text(encoding="utf-8")
