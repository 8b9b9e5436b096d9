"""What live conversations hold of the cache, and who is about to lose it."""

from magpie_ray.generation.cache_use import CacheUse
from magpie_ray.generation.conversation import Cohort
from tests.support.conversations import conversation_of as conversation


def test_a_conversation_holds_its_prompt_and_a_token_for_each_step_since_it_was_asked() -> None:
    cache_use, one = CacheUse(), conversation(Cohort(members=1, began=0), shared=70)
    one.prompt_tokens = 100
    cache_use.submit(one, 5)
    assert cache_use.kv_tokens(5) == 30
    assert cache_use.kv_tokens(25) == 50
    cache_use.complete(one, 18)
    assert cache_use.kv_tokens(99) == 48
    cache_use.release(one)
    assert cache_use.kv_tokens(99) == 0


def test_who_leaves_while_asked_holds_nothing() -> None:
    cache_use, one = CacheUse(), conversation(Cohort(members=1, began=0))
    one.prompt_tokens = 10
    cache_use.submit(one, 0)
    cache_use.release(one)
    assert cache_use.kv_tokens(1000) == 0


def test_those_that_wait_come_up_again_and_again_until_their_turn_begins() -> None:
    cache_use, cohort = CacheUse(), Cohort(members=3, began=0)
    early, late = conversation(cohort, 1), conversation(cohort, 2)
    cache_use.wait(early, 10)
    cache_use.wait(late, 30)
    assert cache_use.take_unused(59, after=50) == []
    assert cache_use.take_unused(60, after=50) == [early]
    assert cache_use.take_unused(60, after=50) == []
    assert cache_use.take_unused(80, after=50) == [late]
    assert cache_use.take_unused(110, after=50) == [early]
    cache_use.submit(early, 111)
    cache_use.release(late)
    assert cache_use.take_unused(10**6, after=50) == []


def test_a_conversation_that_waits_for_a_later_turn_is_not_taken_for_its_earlier_wait() -> None:
    cache_use, cohort = CacheUse(), Cohort(members=2, began=0)
    one = conversation(cohort)
    cache_use.wait(one, 0)
    cache_use.submit(one, 10)
    cache_use.wait(one, 90)
    assert cache_use.take_unused(100, after=50) == []
    assert cache_use.take_unused(140, after=50) == [one]
