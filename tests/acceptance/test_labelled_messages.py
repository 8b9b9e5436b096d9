"""How many of the labelled messages each rule rejects: bad ones, and good ones by mistake."""

import re
from collections import Counter

import pytest

from tests.acceptance.labelled import RuleScores, load_generated, load_written
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def written() -> RuleScores:
    return RuleScores(load_written())


@pytest.fixture(scope="module")
def generated() -> RuleScores:
    return RuleScores(load_generated())


def test_there_are_enough_messages_of_each_kind(written: RuleScores, generated: RuleScores) -> None:
    bad = [message.reason for message in written.messages if message.reason]
    assert len(bad) >= 300
    assert len(written.messages) - len(bad) >= 300
    assert all(bad.count(rule) >= 20 for rule in written.rules)
    assert len(generated.messages) >= 850


@pytest.mark.parametrize("held_out", [False, True])
def test_rules_find_what_they_exist_for_and_leave_good_messages_alone(
    written: RuleScores, held_out: bool
) -> None:
    for rule in written.rules:
        found, bad = written.recall(rule, held_out=held_out)
        assert found >= 0.9 * bad, rule
        rejected, good = written.false_rejects(rule, held_out=held_out)
        assert rejected <= max(1, 0.01 * good), rule
    rejected, good = written.false_rejects(held_out=held_out)
    assert rejected <= 0.01 * good


@pytest.mark.parametrize("held_out", [False, True])
def test_rules_find_the_faults_of_a_real_model_and_leave_its_good_messages_alone(
    generated: RuleScores, held_out: bool
) -> None:
    found, bad = generated.recall("repetition", held_out=held_out)
    assert found >= 0.7 * bad
    found, bad = generated.recall(held_out=held_out)
    assert found >= 0.8 * bad
    rejected, good = generated.false_rejects(held_out=held_out)
    assert rejected <= 0.005 * good


def test_hardly_an_accepted_answer_says_two_sentences_twice(generated: RuleScores) -> None:
    accepted = [
        message.utterance.text
        for message, reasons in zip(generated.messages, generated.rejected_by, strict=True)
        if message.utterance.role == "assistant" and not reasons
    ]
    assert len(accepted) >= 200
    assert sum(sentences_said_again(text) >= 2 for text in accepted) <= 0.02 * len(accepted)


def sentences_said_again(text: str) -> int:
    """Different sentences of 30 characters and more that occur more than once."""
    sentences = Counter(
        part.strip() for part in re.split(r"(?<=[.!?])\s+|\n", text) if len(part.strip()) >= 30
    )
    return sum(times > 1 for times in sentences.values())


def test_the_docs_show_the_tables_as_they_are(written: RuleScores, generated: RuleScores) -> None:
    page = (ROOT / "docs/acceptance.md").read_text(encoding="utf-8")
    for scores in (written, generated):
        print(scores.table())
        assert scores.table() in page
