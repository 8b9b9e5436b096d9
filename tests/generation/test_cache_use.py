"""What live conversations hold of the cache, and who is about to lose it."""

from magpie_ray.generation.cache_use import Residency
from magpie_ray.generation.conversation import Cohort
from tests.support.conversations import conversation_of as conversation


def test_a_conversation_holds_its_prompt_and_a_token_for_each_step_since_it_was_asked() -> None:
    residency, one = Residency(), conversation(Cohort(members=1, began=0), shared=70)
    one.prompt_tokens = 100
    residency.asked(one, 5)
    assert residency.held(5) == 30
    assert residency.held(25) == 50
    residency.answered(one, 18)
    assert residency.held(99) == 48
    residency.left(one)
    assert residency.held(99) == 0


def test_who_leaves_while_asked_holds_nothing() -> None:
    residency, one = Residency(), conversation(Cohort(members=1, began=0))
    one.prompt_tokens = 10
    residency.asked(one, 0)
    residency.left(one)
    assert residency.held(1000) == 0


def test_those_that_wait_come_up_again_and_again_until_their_turn_begins() -> None:
    residency, cohort = Residency(), Cohort(members=3, began=0)
    early, late = conversation(cohort, 1), conversation(cohort, 2)
    cohort.ended = [early, late]
    residency.waits(early, 10)
    residency.waits(late, 30)
    assert residency.take_unused(59, after=50) == []
    assert residency.take_unused(60, after=50) == [early]
    assert residency.take_unused(60, after=50) == []
    assert residency.take_unused(80, after=50) == [late]
    assert residency.take_unused(110, after=50) == [early]
    cohort.ended.clear()
    assert residency.take_unused(10**6, after=50) == []


def test_a_conversation_that_waits_for_a_later_turn_is_not_taken_for_its_earlier_wait() -> None:
    residency, cohort = Residency(), Cohort(members=2, began=0)
    one = conversation(cohort)
    cohort.ended = [one]
    residency.waits(one, 0)
    one.message_ids += [[1], [2]]
    residency.waits(one, 90)
    assert residency.take_unused(100, after=50) == []
    assert residency.take_unused(140, after=50) == [one]
