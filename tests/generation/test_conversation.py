"""What of a conversation is complete, and when a cohort is ready."""

import pytest

from magpie_ray.generation.conversation import Cohort
from tests.support.conversations import conversation_of as conversation


@pytest.mark.parametrize(
    ("messages_per_row", "complete"),
    [(1, [0]), (2, [0, 0]), (3, [0, 1, 1]), (4, [0, 0, 2, 2]), (5, [0, 1, 1, 3, 3])],
)
def test_what_is_complete_ends_with_the_role_that_rows_end_with(
    messages_per_row: int, complete: list[int]
) -> None:
    started = [conversation(Cohort(1), accepted=n) for n in range(messages_per_row)]
    assert [c.complete_messages(messages_per_row) for c in started] == complete


def test_a_cohort_is_ready_once_all_who_are_still_in_it_have_ended_the_turn() -> None:
    cohort = Cohort(3)
    first, second, third = (conversation(cohort) for _ in range(3))
    cohort.waiting += [first, second]
    assert not cohort.is_ready
    cohort.leave(second)
    assert not cohort.is_ready
    cohort.leave(third)
    assert cohort.is_ready
    assert cohort.begin_turn(step=9) == [first]
    assert (cohort.completed_turns, cohort.began) == (1, 9)
    assert not cohort.is_ready


def test_a_later_prompt_is_known_up_to_the_end_of_the_last_message() -> None:
    one = conversation(Cohort(1))
    one.shared_tokens = 4
    assert one.known_tokens == 4
    one.prompt_tokens = 7
    one.message_ids.append([1, 2])
    assert one.known_tokens == 9
