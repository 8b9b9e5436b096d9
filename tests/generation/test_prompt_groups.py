"""Prompt groups: whose outcomes count when, and how many groups are remembered."""

import pytest

from magpie_ray.generation.prompt_groups import Draw, GroupKey, Outcome, PromptGroup, PromptGroups, Shortfall
from magpie_ray.generation.sequential_tests import AcceptRateTest
from magpie_ray.types import SystemPrompt
from tests.support.held import held_by

GOOD, BAD = Outcome(), Outcome(reason="empty")


def key_of(number: int, sampling_key: int | None = None) -> GroupKey:
    return GroupKey(SystemPrompt(text=f"prompt {number}", weight=0.1, key=None), sampling_key)


def started(group: PromptGroup, count: int) -> list[Draw]:
    """So many draws of the group, at rows 0, 1, 2 ..."""
    draws = [Draw(key_of(0), row_id) for row_id in range(count)]
    for draw in draws:
        group.start(draw)
    return draws


def end(group: PromptGroup, draw: Draw, outcome: Outcome) -> Shortfall | None:
    draw.end(outcome)
    return group.count()


def test_outcomes_count_in_the_order_of_the_starts() -> None:
    group = PromptGroup("", AcceptRateTest(0.5))
    draws = started(group, 3)
    for number, outcome, counts in [(2, BAD, (0, 0)), (0, GOOD, (1, 0)), (1, BAD, (1, 2))]:
        end(group, draws[number], outcome)
        assert (group.accepted, group.rejected) == counts
    assert group.is_idle


def test_draws_at_discarded_rows_never_count_whether_they_have_ended_or_not() -> None:
    group = PromptGroup("", AcceptRateTest(0.5))
    draws = started(group, 6)
    for number in (0, 2, 4):
        end(group, draws[number], BAD)
    group.withdraw(range(3))
    for number in (3, 5):
        end(group, draws[number], GOOD)
    assert (group.accepted, group.rejected, group.is_idle) == (2, 2, True)


def test_rejections_that_end_first_show_nothing_before_the_others_have_ended() -> None:
    group = PromptGroup(" with x", AcceptRateTest(0.5))
    first, *others = started(group, 101)
    assert [end(group, draw, BAD) for draw in others] == [None] * 100
    shortfall = end(group, first, BAD)
    assert shortfall
    assert (shortfall.group, shortfall.rejected) == (" with x", shortfall.draws)
    assert shortfall.draws < 100
    assert f"{shortfall.draws} empty" in str(shortfall.reasons)


def test_the_reasons_are_those_since_the_group_was_last_well() -> None:
    group = PromptGroup("", AcceptRateTest(0.5))
    shortfall = None
    for number, draw in enumerate(started(group, 1000)):
        outcome = GOOD if 10 <= number < 30 else Outcome(reason="old" if number < 10 else "new")
        if shortfall := end(group, draw, outcome):
            break
    assert shortfall
    assert [reason for reason, _ in shortfall.reasons.counts] == ["new"]


def test_groups_that_are_used_no_more_are_forgotten_and_those_at_work_are_not() -> None:
    groups = PromptGroups(0.1, groups=10**6)
    long = Draw(key_of(-1), -1)
    groups.start(long)
    sizes = []
    for number in range(8000):
        if number == 4000:
            assert groups.end(long, GOOD) is None
        draw = Draw(key_of(number), number)
        groups.start(draw)
        groups.end(draw, BAD if number % 2 and number < 4000 else GOOD)
        if number % 1000 == 999:
            sizes.append(held_by(groups)["PromptGroup"])
    assert max(sizes) <= 1030
    assert sizes[-1] <= 1025


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (GroupKey(None, None), ""),
        (GroupKey(None, 3), " with sampling_key 3"),
        (GroupKey(SystemPrompt(text="Teach.", weight=1, key="a"), None), " with system_prompt.a ('Teach.')"),
        (key_of(1, 0), " with system_prompt ('prompt 1') and sampling_key 0"),
    ],
)
def test_a_group_is_named_by_what_its_rows_share(key: GroupKey, words: str) -> None:
    assert str(key) == words
