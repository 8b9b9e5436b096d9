"""What the rules find among the labelled messages, and what they reject by mistake."""

import pytest

from tests.acceptance.labelled import Judged, load
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def judged() -> Judged:
    return Judged(load())


def test_there_are_enough_messages_of_each_kind(judged: Judged) -> None:
    bad = [message.reason for message in judged.messages if message.reason]
    assert len(bad) >= 300
    assert len(judged.messages) - len(bad) >= 300
    assert all(bad.count(rule) >= 20 for rule in judged.rules)


@pytest.mark.parametrize("held_out", [False, True])
def test_rules_find_what_they_exist_for_and_leave_good_messages_alone(judged: Judged, held_out: bool) -> None:
    for rule in judged.rules:
        found, bad = judged.recall(rule, held_out=held_out)
        assert found >= 0.9 * bad, rule
        rejected, good = judged.false_rejects(rule, held_out=held_out)
        assert rejected <= max(1, 0.01 * good), rule
    rejected, good = judged.false_rejects(held_out=held_out)
    assert rejected <= 0.01 * good


def test_the_readme_shows_the_table_as_it_is(judged: Judged) -> None:
    table = judged.table()
    print(table)
    assert table in (ROOT / "docs/acceptance.md").read_text(encoding="utf-8")
