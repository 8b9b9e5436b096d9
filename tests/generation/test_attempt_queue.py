"""Attempts that wait: each is taken once, later ones first, and those that go on wait for their cohort."""

from magpie_ray.generation.attempt_queue import OFTEN, Attempt, AttemptQueue
from magpie_ray.types import Message


def going_on(row_id: int, turns: int) -> Attempt:
    message = Message(role="user", text="", finish_reason="stop", prompt_tokens=1, completion_tokens=1)
    return Attempt(row_id=row_id, number=2, messages=(message,) * 2 * turns, message_ids=([1],) * 2 * turns)


def test_later_attempts_are_taken_before_rows_that_have_not_begun() -> None:
    queue = AttemptQueue()
    queue.add([5, 6])
    queue.add_retry(Attempt(row_id=3, number=2))
    assert (queue.unstarted, queue.waiting(0)) == (2, 3)
    assert [(a.row_id, a.number) for a in queue.take(0, 2)] == [(3, 2), (5, 1)]
    assert [a.row_id for a in queue.take(0, 9)] == [6]
    assert not queue


def test_what_goes_on_is_due_when_no_cohort_will_come_by() -> None:
    queue = AttemptQueue()
    queue.add_retry(going_on(1, turns=2))
    queue.add_retry(going_on(2, turns=3))
    assert queue.continuing == 2
    assert queue.due([1]) == []
    assert queue.due([2, 3]) == [2]
    assert queue.due([]) == [2]
    queue.add([7])
    assert queue.due([1]) == [0]
    assert queue.due([]) == [0, 2]
    assert [a.row_id for a in queue.take(2)] == [1]
    assert queue.take(1) == []


def test_discarded_rows_are_not_taken() -> None:
    queue = AttemptQueue()
    queue.add(range(4))
    queue.add_retry(going_on(9, turns=1))
    queue.add_retry(going_on(2, turns=1))
    queue.discard(range(2, 10))
    assert [a.row_id for a in queue.take(0, 9)] == [0, 1]
    assert not queue


def order(queue: AttemptQueue) -> list[tuple[int, int]]:
    """Rows and attempts that are taken one at a time."""
    taken = []
    while queue:
        [attempt] = queue.take(0, 1)
        taken.append((attempt.row_id, attempt.number))
    return taken


def test_a_row_that_was_rejected_often_waits_for_the_rows_that_were_added_with_it() -> None:
    queue = AttemptQueue()
    queue.add(range(4))
    queue.add(range(4, 6))
    assert [a.row_id for a in queue.take(0, 2)] == [0, 1]
    queue.add_retry(Attempt(row_id=0, number=OFTEN + 1))
    queue.add_retry(Attempt(row_id=1, number=OFTEN))
    assert (queue.unstarted, queue.waiting(0)) == (4, 6)
    # Its file waits for it before the next file has begun.
    assert order(queue) == [(1, OFTEN), (2, 1), (3, 1), (0, OFTEN + 1), (4, 1), (5, 1)]


def test_a_row_that_its_file_waits_for_is_tried_at_once() -> None:
    queue = AttemptQueue()
    queue.add(range(2))
    queue.add([7, 8])
    assert len(queue.take(0, 2)) == 2
    queue.add_retry(Attempt(row_id=1, number=100))
    assert order(queue) == [(1, 100), (7, 1), (8, 1)]
    queue.add_retry(Attempt(row_id=1, number=101))
    assert queue
    assert order(queue) == [(1, 101)]


def test_a_row_that_was_rejected_often_still_continues_its_turns_with_its_cohort() -> None:
    queue = AttemptQueue()
    queue.add(range(2))
    often = going_on(9, turns=1)
    queue.add_retry(Attempt(row_id=0, number=99, messages=often.messages, message_ids=often.message_ids))
    assert [a.row_id for a in queue.take(1)] == [0]


def test_discarding_the_rows_that_others_wait_for_lets_those_go_on() -> None:
    queue = AttemptQueue()
    queue.add(range(4))
    queue.take(0, 2)
    for row_id in (0, 1):
        queue.add_retry(Attempt(row_id=row_id, number=99))
    queue.discard(range(1, 4))
    assert (queue.unstarted, order(queue)) == (0, [(0, 99)])
    queue.add([])
    assert not queue
