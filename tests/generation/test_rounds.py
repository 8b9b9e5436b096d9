"""Cohorts over a simulated engine: every row once, nobody ahead of its cohort, prompts of token ids alone."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray import draws
from magpie_ray.acceptance import truncated
from magpie_ray.acceptance.rule import RuleContext
from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.counters import Tally
from magpie_ray.engine.protocol import EngineFigures, Request, Sampling
from magpie_ray.engine.simulated.engine import Answer
from magpie_ray.errors import RowExhaustedError
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.conversation import Conversation
from magpie_ray.generation.recipe import SamplingPair
from magpie_ray.generation.rounds import Rounds
from magpie_ray.types import Rejection, Row, SystemPrompt
from tests.support.rounds import (
    ASKS_ANSWER,
    ASSISTANT,
    FIGURES,
    MARKER,
    NEXT_USER,
    PREFIX,
    USER,
    WAS_ANSWERED,
    LateExecutor,
    MarkedFormat,
    WatchedEngine,
    finished,
    generated,
    recipe,
    run_to_end,
    unique_words,
    window,
)

some = settings(max_examples=40, derandomize=True, deadline=None)


@some
@given(
    num_rows=st.integers(1, 40),
    cohort_size=st.integers(1, 12),
    cohorts_in_flight=st.integers(1, 4),
    slots=st.integers(1, 16),
    messages_per_row=st.integers(1, 6),
    reject_every=st.sampled_from([0, 3, 10]),
    seed=st.integers(0, 1000),
)
def test_every_row_comes_out_once_and_its_cohort_never_splits_by_a_turn(
    num_rows: int,
    cohort_size: int,
    cohorts_in_flight: int,
    slots: int,
    messages_per_row: int,
    reject_every: int,
    seed: int,
) -> None:
    cohorts: dict[object, list[Conversation]] = defaultdict(list)

    class CohortWatcher(WatchedEngine):
        def submit(self, request: Request) -> None:
            [conversation] = [c for c in rounds.live.values() if c.request_id == request.request_id]
            members = cohorts[conversation.cohort]
            if conversation not in members:
                members.append(conversation)
            if conversation.next_role == "user":
                # A turn begins: all who are still in the cohort have ended all turns before.
                live = [c for c in members if rounds.live.get(c.row_id) is c]
                assert all(len(c.messages) >= len(conversation.messages) for c in live)
            super().submit(request)

    engine = CohortWatcher(
        unique_words(seed, reject_every=reject_every), replace(FIGURES, max_num_seqs=slots)
    )
    rounds = Rounds(engine, recipe(messages_per_row=messages_per_row), window(cohort_size, cohorts_in_flight))
    rounds.add(range(num_rows))
    outcomes = run_to_end(rounds)
    rows = finished(outcomes)
    assert sorted(rows) == list(range(num_rows))
    assert all(len(row.messages) == messages_per_row for row in rows.values())
    assert all(len(members) <= cohort_size for members in cohorts.values())
    for row_id, row in rows.items():
        rejected = [o for o in outcomes if isinstance(o, Rejection) and o.row_id == row_id]
        assert [rejection.attempt for rejection in rejected] == list(range(1, row.attempt))


def test_nobody_begins_a_turn_before_the_whole_cohort_has_ended_the_one_before() -> None:
    slow_row = [True]

    def respond(request: Request) -> Answer:
        slow = slow_row and request.prompt_token_ids == [PREFIX] and slow_row.pop()
        return list(range(100, 140 if slow else 102)), "stop"

    engine = WatchedEngine(respond)
    rounds = Rounds(engine, recipe(), window(4, 1))
    rounds.add(range(4))
    second_turns: list[int] = []
    while rounds.busy:
        rounds.step()
        second_turns.append(sum(NEXT_USER in r.prompt_token_ids for r in engine.requests))
    first = next(step for step, count in enumerate(second_turns) if count)
    assert second_turns[first] == 4
    assert first > 40


def test_an_answer_is_asked_for_as_soon_as_its_own_question_is_there() -> None:
    lengths = iter([2, 30, 30, 30, *[2] * 100])
    engine = WatchedEngine(lambda request: (list(range(100, 100 + next(lengths))), "stop"))
    rounds = Rounds(engine, recipe(messages_per_row=2), window(4, 1))
    rounds.add(range(4))
    first_row_after = 0
    while not finished(rounds.step()):
        first_row_after += 1
    assert first_row_after < 10


def test_one_turn_builds_start_new_cohorts_while_a_straggler_goes_on() -> None:
    straggler = [True]

    def respond(request: Request) -> Answer:
        return [7] * (40 if straggler and straggler.pop() else 2), "stop"

    rounds = Rounds(WatchedEngine(respond), recipe(messages_per_row=1), window(2, 2))
    rounds.add(range(12))
    rows = [o.row_id for o in run_to_end(rounds) if isinstance(o, Row)]
    assert rows == [*range(1, 12), 0]


def test_several_cohorts_are_in_flight() -> None:
    rounds = Rounds(WatchedEngine(unique_words()), recipe(), window())
    rounds.add(range(30))
    rounds.step()
    assert (len(rounds.live), rounds.unstarted) == (12, 18)


def test_a_part_of_a_cohort_waits_while_the_batch_is_full() -> None:
    engine = WatchedEngine(unique_words())
    rounds = Rounds(engine, recipe(), window())
    rounds.add(range(9))
    rounds.step()
    assert (len(rounds.live), rounds.unstarted) == (8, 1)
    rounds.add(range(9, 12))
    rounds.step()
    assert (len(rounds.live), rounds.unstarted) == (12, 0)


def test_a_rejected_row_joins_a_later_cohort() -> None:
    rejects = iter([True])
    engine = WatchedEngine(lambda request: ([MARKER] if next(rejects, False) else [7, 7], "stop"))
    rounds = Rounds(engine, recipe(), window(4, 2))
    rounds.add(range(4))
    cohorts: dict[tuple[int, int], object] = {}
    outcomes: list[Row | Rejection] = []
    while rounds.busy:
        outcomes += rounds.step()
        for c in rounds.live.values():
            cohorts[c.row_id, c.attempt] = c.cohort
    assert finished(outcomes)[0].attempt == 2
    assert cohorts[0, 2] not in {cohort for key, cohort in cohorts.items() if key != (0, 2)}
    assert {row_id: row.attempt for row_id, row in finished(outcomes).items()} == {0: 2, 1: 1, 2: 1, 3: 1}


def test_a_rejection_tells_where_why_and_what_it_cost() -> None:
    answers = iter([([50, 51], "stop"), ([60], "stop"), ([70, MARKER], "stop")])
    engine = WatchedEngine(lambda request: next(answers, ([7], "stop")))
    rounds = Rounds(engine, recipe(), window(1, 1))
    rounds.add([0])
    [rejection] = [o for o in run_to_end(rounds) if isinstance(o, Rejection)]
    assert rejection == Rejection(
        row_id=0,
        attempt=1,
        role="user",
        turn=2,
        reason="role_marker",
        text=f"70 {MARKER}",
        messages=rejection.messages,
        user_tokens=3 + 3,
        assistant_tokens=2,
    )


def test_prompts_are_the_prefix_and_the_messages_as_token_ids_from_start_to_end() -> None:
    form = MarkedFormat()
    engine = WatchedEngine(unique_words())
    prompts = (SystemPrompt(text="a", weight=0.5), SystemPrompt(text="b", weight=0.5))
    rounds = Rounds(engine, recipe(chat_format=form, prompts=prompts), window())
    rounds.add(range(10))
    rows = finished(run_to_end(rounds))
    calls = list(form.calls)
    sent = [tuple(request.prompt_token_ids) for request in engine.requests]
    assert sent == [tuple(form.prompt(prefix, messages)) for prefix, messages in calls]
    expected = []
    for row in rows.values():
        assert row.system_prompt is not None
        ids = generated(row)
        for count in range(4):
            prompt = form.prompt(form.prefix(row.system_prompt.text), ids[:count])
            expected.append(tuple(prompt))
            assert row.messages[count].prompt_tokens == len(prompt)
    assert sorted(sent) == sorted(expected)


def test_each_role_has_its_own_sampling() -> None:
    engine = WatchedEngine(unique_words())
    rounds = Rounds(engine, recipe(), window())
    rounds.add(range(5))
    run_to_end(rounds)
    for request in engine.requests:
        answers = request.prompt_token_ids[-1] == ASKS_ANSWER
        assert request.sampling == (ASSISTANT if answers else USER)
        assert request.seed is None


def test_a_row_keeps_its_sampling_settings_over_turns_and_attempts_and_names_them() -> None:
    hot = Sampling(settings=SamplingSettings(temperature=1.5, max_tokens=50))
    pairs = tuple(SamplingPair(user=user, assistant=ASSISTANT, weight=0.5) for user in (USER, hot))
    engine = WatchedEngine(unique_words(reject_every=4))
    rounds = Rounds(engine, recipe(samplings=pairs), window())
    rounds.add(range(40))
    rows = finished(run_to_end(rounds))
    drawn = {row_id: draws.sampling_of(row_id, seed=5, weights=[0.5, 0.5]) for row_id in rows}
    assert {row_id: row.sampling_key for row_id, row in rows.items()} == drawn
    assert set(drawn.values()) == {0, 1}
    starts = [r.sampling for r in engine.requests if r.prompt_token_ids == [PREFIX]]
    assert max(row.attempt for row in rows.values()) > 1
    expected = [pairs[drawn[o.row_id]].user for o in rows.values() for _ in range(o.attempt)]
    assert Counter(starts) == Counter(expected)


def test_a_conversation_that_outgrows_the_context_is_rejected_and_tried_again() -> None:
    lengths = iter([30, *[3] * 100])
    engine = WatchedEngine(lambda request: ([7] * next(lengths), "stop"), replace(FIGURES, max_model_len=35))
    rounds = Rounds(engine, recipe(), window())
    rounds.add([0])
    # 1 + 30 + 1 prompt tokens leave room for an answer, but not for another turn.
    outcomes = run_to_end(rounds)
    [rejection] = [o for o in outcomes if isinstance(o, Rejection)]
    assert (rejection.reason, rejection.role, rejection.turn) == ("context_full", "user", 2)
    assert finished(outcomes)[0].attempt == 2


def test_a_first_prompt_that_never_fits_exhausts_its_row_without_reaching_the_engine() -> None:
    engine = WatchedEngine(unique_words(), replace(FIGURES, max_model_len=1))
    rounds = Rounds(engine, recipe(max_attempts=3), window())
    rounds.add(range(6))
    with pytest.raises(RowExhaustedError, match=r"context_full.*\n.*engine\.max_model_len"):
        run_to_end(rounds)
    assert engine.requests == []


# ---- conversations that outgrow the context


@pytest.mark.parametrize("messages_per_row", [4, 6])
def test_a_conversation_that_outgrows_the_context_may_end_with_the_turns_it_has(
    messages_per_row: int,
) -> None:
    lengths = iter([10, 15, *[3] * 100])
    engine = WatchedEngine(lambda request: ([7] * next(lengths), "stop"), replace(FIGURES, max_model_len=28))
    rounds = Rounds(engine, recipe(messages_per_row=messages_per_row, context_full="stop"), window())
    rounds.add([0])
    [row] = run_to_end(rounds)
    assert isinstance(row, Row)
    assert ([m.role for m in row.messages], row.attempt) == (["user", "assistant"], 1)


def test_a_row_that_is_to_end_with_the_user_ends_so_when_the_context_is_full() -> None:
    lengths = iter([10, 15, *[3] * 100])
    engine = WatchedEngine(lambda request: ([7] * next(lengths), "stop"), replace(FIGURES, max_model_len=28))
    rounds = Rounds(engine, recipe(messages_per_row=5, context_full="stop"), window())
    rounds.add([0])
    [row] = run_to_end(rounds)
    assert isinstance(row, Row)
    assert [m.role for m in row.messages] == ["user"]


@pytest.mark.parametrize("messages_per_row", [1, 2, 4, 5])
def test_a_row_without_a_whole_turn_is_rejected_when_the_context_is_full(messages_per_row: int) -> None:
    lengths = iter([30, *[3] * 100])
    engine = WatchedEngine(lambda request: ([7] * next(lengths), "stop"), replace(FIGURES, max_model_len=30))
    rounds = Rounds(engine, recipe(messages_per_row=messages_per_row, context_full="stop"), window())
    rounds.add([0])
    [rejection, row] = run_to_end(rounds)
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, rejection.role, rejection.turn) == ("context_full", "user", 1)
    assert isinstance(row, Row)
    assert len(row.messages) == messages_per_row


@pytest.mark.parametrize(
    ("length", "reason"),
    [(USER.settings.max_tokens, "truncated"), (USER.settings.max_tokens - 1, "context_full")],
)
def test_a_message_cut_by_the_context_is_told_from_one_cut_by_max_tokens(length: int, reason: str) -> None:
    lengths = iter([99, *[3] * 100])
    engine = WatchedEngine(
        lambda request: ([7] * next(lengths), "stop"), replace(FIGURES, max_model_len=1 + length)
    )
    rounds = Rounds(engine, recipe(), window())
    rounds.add([0])
    [rejection] = [o for o in run_to_end(rounds) if isinstance(o, Rejection)]
    assert (rejection.reason, rejection.role) == (reason, "user")


@pytest.mark.parametrize(
    ("rejects_cut_answers", "stops", "kept"),
    [(False, False, 0), (False, True, 4), (True, False, 0), (True, True, 2)],
)
def test_an_answer_cut_by_the_context_is_kept_or_left_out_as_the_recipe_says(
    rejects_cut_answers: bool, stops: bool, kept: int
) -> None:
    lengths = iter([3, 3, 3, 40, *[1] * 100])
    engine = WatchedEngine(lambda request: ([7] * next(lengths), "stop"), replace(FIGURES, max_model_len=20))
    rules = {"truncated": truncated.make_rule(True, RuleContext(rejects_cut_answers=rejects_cut_answers))}
    rounds = Rounds(
        engine, recipe(messages_per_row=6, context_full="stop" if stops else "reject", rules=rules), window()
    )
    rounds.add([0])
    first = run_to_end(rounds)[0]
    if kept:
        assert isinstance(first, Row)
        assert len(first.messages) == kept
        assert first.messages[-1].finish_reason == ("stop" if rejects_cut_answers else "length")
    else:
        assert isinstance(first, Rejection)
        assert first.reason == "context_full"
        assert first.role == ("assistant" if rejects_cut_answers else "user")


@some
@given(
    messages_per_row=st.integers(1, 7),
    max_model_len=st.integers(15, 60),
    stops=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_rows_in_a_narrow_context_end_as_rows_of_the_build_do(
    messages_per_row: int, max_model_len: int, stops: bool, seed: int
) -> None:
    engine = WatchedEngine(unique_words(seed, longest=8), replace(FIGURES, max_model_len=max_model_len))
    rounds = Rounds(
        engine,
        recipe(messages_per_row=messages_per_row, context_full="stop" if stops else "reject"),
        window(),
    )
    rounds.add(range(15))
    outcomes: list[Row | Rejection] = []
    while rounds.busy and len(outcomes) < 200:  # rejecting, few rows of many messages fit
        outcomes += rounds.step()
    for row in finished(outcomes).values():
        assert (messages_per_row - len(row.messages)) % 2 == 0
        assert stops or len(row.messages) == messages_per_row
        assert sum(map(len, generated(row))) < max_model_len
    if stops:
        assert sorted(finished(outcomes)) == list(range(15)) or len(outcomes) >= 200


# ---- rows that go on after their last good turn


def dropping(times: dict[int, int]) -> Callable[[Request], Answer]:
    """Good messages of one token, but for so many behind so many messages."""
    used = iter(range(10_000, 10**9))

    def respond(request: Request) -> Answer:
        before = sum(token in (ASKS_ANSWER, WAS_ANSWERED, NEXT_USER) for token in request.prompt_token_ids)
        if times.get(before):
            times[before] -= 1
            return [MARKER], "stop"
        return [next(used)], "stop"

    return respond


def test_a_rejected_row_goes_on_after_its_last_good_turn() -> None:
    engine = WatchedEngine(dropping({3: 1}))
    rounds = Rounds(engine, recipe(messages_per_row=6, retry_from="last_turn"), window(1, 1))
    rounds.add([0])
    [rejection, row] = run_to_end(rounds)
    assert isinstance(rejection, Rejection)
    assert isinstance(row, Row)
    assert (rejection.turn, rejection.role, rejection.attempt, row.attempt) == (2, "assistant", 1, 2)
    assert (rejection.user_tokens, rejection.assistant_tokens) == (2, 3 - 1)
    # Its first turn was generated once, its second one twice.
    assert len(engine.requests) == 2 + 2 + 2 + 2
    assert [m.text for m in rejection.messages[:2]] == [m.text for m in row.messages[:2]]
    assert rejection.messages[2].text != row.messages[2].text


def test_a_row_that_fails_again_at_the_same_turn_begins_anew() -> None:
    engine = WatchedEngine(dropping({2: 2}))
    rounds = Rounds(engine, recipe(messages_per_row=4, retry_from="last_turn"), window(1, 1))
    rounds.add([0])
    first, second, row = run_to_end(rounds)
    assert isinstance(first, Rejection)
    assert isinstance(second, Rejection)
    assert isinstance(row, Row)
    assert first.messages == second.messages != row.messages[:2]
    # What the first attempt kept for the second is dropped with the second.
    assert (first.user_tokens, first.assistant_tokens) == (2, 0)
    assert (second.user_tokens, second.assistant_tokens) == (2 + 2, 2)


def test_a_full_context_is_begun_anew_in_any_case() -> None:
    lengths = iter([9, 9, 9, 2, 2, 2, 2])
    figures = replace(FIGURES, max_model_len=25)
    engine = WatchedEngine(lambda request: ([7] * next(lengths), "stop"), figures)
    rounds = Rounds(
        engine, recipe(messages_per_row=4, retry_from="last_turn"), AdmissionWindow(figures, cohort_size=1)
    )
    rounds.add([0])
    outcomes = run_to_end(rounds)
    assert [o.reason for o in outcomes if isinstance(o, Rejection)] == ["context_full"]
    assert all(len(ids) == 2 for ids in generated(finished(outcomes)[0]))


@settings(some, max_examples=150)
@given(
    num_rows=st.integers(1, 40),
    cohort_size=st.integers(1, 6),
    in_flight=st.integers(1, 4),
    messages_per_row=st.integers(1, 7),
    reject_every=st.integers(3, 9),
    cache=st.none() | st.sampled_from([60, 200, 10_000]),
    seed=st.integers(0, 999),
)
def test_rows_that_go_on_keep_step_with_the_cohorts_they_join(
    num_rows: int,
    cohort_size: int,
    in_flight: int,
    messages_per_row: int,
    reject_every: int,
    cache: int | None,
    seed: int,
) -> None:
    engine = WatchedEngine(unique_words(seed, reject_every=reject_every))
    made = recipe(messages_per_row=messages_per_row, retry_from="last_turn", max_attempts=10_000)
    chosen = AdmissionWindow(
        replace(FIGURES, kv_cache_tokens=cache or 1),
        cohort_size=cohort_size,
        cohorts_in_flight=None if cache else in_flight,
        turns=messages_per_row / 2,
        tokens_per_turn=20,
    )
    rounds = Rounds(engine, made, chosen)
    rounds.add(range(num_rows))
    outcomes: list[Row | Rejection] = []
    while rounds.busy:
        outcomes += rounds.step()
        assert cache or len(rounds.live) <= rounds.window.live
        for c in rounds.live.values():
            # In its cohort's turn, or at the barrier behind it.
            waits = c in c.cohort.waiting
            assert c.next_turn == c.cohort.completed_turns + (2 if waits else 1)
        by_cohort = Counter(c.cohort for c in rounds.live.values())
        assert all(cohort.members == members for cohort, members in by_cohort.items())
    rows = finished(outcomes)
    assert sorted(rows) == list(range(num_rows))
    for row_id, row in rows.items():
        attempts = [o.attempt for o in outcomes if isinstance(o, Rejection) and o.row_id == row_id]
        assert attempts == list(range(1, row.attempt))
    # All that was generated is accounted for, once.
    tally = Tally.sum(Tally.of_row(o) if isinstance(o, Row) else Tally.of_rejection(o) for o in outcomes)
    assert tally.tokens == engine.stats().generated_tokens
    assert not any(MARKER in ids for row in rows.values() for ids in generated(row))


def test_what_goes_on_waits_for_a_cohort_that_has_come_as_far() -> None:
    engine = WatchedEngine(dropping({2: 1}))
    rounds = Rounds(engine, recipe(messages_per_row=6, retry_from="last_turn"), window(2, 4))
    rounds.add(range(4))
    for _ in range(4):
        rounds.step()
    rounds.add(range(4, 8))
    cohorts: dict[tuple[int, int], set[object]] = defaultdict(set)
    while rounds.busy:
        rounds.step()
        for c in rounds.live.values():
            cohorts[c.row_id, c.attempt].add(c.cohort)
    [[row_id, _]] = [key for key in cohorts if key[1] == 2]
    [joined] = cohorts[row_id, 2]
    assert joined in {
        cohort for key, joined_by in cohorts.items() for cohort in joined_by if key != (row_id, 2)
    }
    assert joined not in cohorts[row_id, 1]


# ---- rows that are not wanted any more


@settings(some, max_examples=150)
@given(
    data=st.data(),
    cohort_size=st.integers(1, 6),
    slots=st.integers(1, 10),
    messages_per_row=st.integers(1, 3),
    reject_every=st.sampled_from([0, 3, 10]),
    max_model_len=st.sampled_from([25, 10_000]),
    stops=st.booleans(),
    late=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_discarded_rows_never_come_out_and_all_others_once(
    data: st.DataObject,
    cohort_size: int,
    slots: int,
    messages_per_row: int,
    reject_every: int,
    max_model_len: int,
    stops: bool,
    late: bool,
    seed: int,
) -> None:
    engine = WatchedEngine(
        unique_words(seed, longest=9, reject_every=reject_every),
        replace(FIGURES, max_num_seqs=slots, max_model_len=max_model_len),
    )
    small = window(cohort_size, 3)
    executor = LateExecutor() if late else None
    made = recipe(messages_per_row=messages_per_row, context_full="stop" if stops else "reject")
    rounds = Rounds(engine, made, small, executor=executor)
    added, discarded, came_out = 0, set[int](), set[int]()
    done = list[int]()

    def step() -> None:
        if executor and (not engine.outstanding or data.draw(st.booleans(), "verdicts arrive")):
            executor.catch_up()
        for outcome in rounds.step():
            assert outcome.row_id not in discarded
            came_out.add(outcome.row_id)
            if isinstance(outcome, Row):
                done.append(outcome.row_id)

    for act in data.draw(st.lists(st.sampled_from(["add", "step", "steps", "discard"]), max_size=30)):
        match act:
            case "add":
                count = data.draw(st.integers(1, 8))
                rounds.add(range(added, added + count))
                added += count
            case "discard":
                start = data.draw(st.integers(0, added))
                rows = range(start, data.draw(st.integers(start, added)))
                rounds.discard(rows)
                discarded.update(rows)
            case _:
                for _ in range(1 if act == "step" else 7):
                    step()
        assert len(rounds.live) <= small.live
        assert rounds.unstarted <= len(set(range(added)) - discarded - came_out)
        assert rounds.busy == bool(set(range(added)) - discarded - set(done))
    while rounds.busy:
        step()
    assert len(done) == len(set(done))
    assert set(done) - discarded == set(range(added)) - discarded
    assert engine.outstanding == 0


def test_the_engine_is_free_at_once_of_rows_that_are_discarded() -> None:
    engine = WatchedEngine(unique_words())
    rounds = Rounds(engine, recipe(), window())
    rounds.add(range(100))
    rounds.step()
    rounds.discard(range(100))
    assert (rounds.busy, len(rounds.live), rounds.unstarted, engine.outstanding) == (False, 0, 0, 0)
    assert rounds.step() == []


def test_those_who_waited_for_discarded_rows_alone_begin_their_next_turn() -> None:
    lengths = iter([2, 30, 2])
    engine = WatchedEngine(lambda request: ([7] * next(lengths, 2), "stop"))
    rounds = Rounds(engine, recipe(), window(2, 1))
    rounds.add(range(2))
    rounds.step()
    while not rounds.live[0].cohort.waiting:
        rounds.step()
    rounds.discard(range(1, 2))
    assert engine.requests[-1].prompt_token_ids[-1] == NEXT_USER
    assert sorted(finished(run_to_end(rounds))) == [0]


def test_a_row_that_a_discard_brings_to_its_end_still_comes_out() -> None:
    figures = replace(FIGURES, max_num_seqs=1, max_model_len=11)  # 1 + 4 + 1 + 4 + 1 tokens fill it
    engine = WatchedEngine(lambda request: ([7] * 4, "stop"), figures)
    rounds = Rounds(engine, recipe(context_full="stop"), window(2, 1))
    rounds.add(range(2))
    rounds.step()
    while not rounds.live[0].cohort.waiting:
        rounds.step()
    rounds.discard(range(1, 2))
    assert not rounds.live
    assert [row.row_id for row in run_to_end(rounds)] == [0]


def test_a_discarded_row_is_not_exhausted_by_an_attempt_that_was_under_way() -> None:
    engine = WatchedEngine(lambda request: ([MARKER], "stop"))
    rounds = Rounds(engine, recipe(max_attempts=2), window())
    rounds.add([5])
    while len(engine.requests) < 2 or engine.outstanding:
        rounds.step()
    rounds.discard(range(5, 6))  # its last attempt has ended and has no verdict yet
    assert rounds.step() == []
    assert not rounds.busy


def test_a_row_that_was_discarded_may_be_added_again() -> None:
    engine = WatchedEngine(unique_words())
    executor = LateExecutor()
    rounds = Rounds(engine, recipe(messages_per_row=1), window(), executor=executor)
    rounds.add([0])
    while not engine.stats().steps or engine.outstanding:
        rounds.step()
    rounds.discard(range(1))
    rounds.add([0])
    executor.catch_up()
    outcomes = rounds.step()
    while rounds.busy:
        if not engine.outstanding:
            executor.catch_up()
        outcomes += rounds.step()
    assert sorted(finished(outcomes)) == [0]


def seeds_by_row(
    rows: list[int], window: AdmissionWindow, slots: int, *, retries_turn: bool
) -> dict[int, tuple[int | None, ...]]:
    """The seed of each message of each accepted attempt, with messages that depend on their seed alone."""
    by_ids: dict[int, int] = {}

    def respond(request: Request) -> Answer:
        assert request.seed is not None
        draw = random.Random(request.seed)
        ids = [draw.randrange(10**6, 10**12) for _ in range(draw.randint(1, 9))]
        by_ids[ids[0]] = request.seed
        return [*ids, MARKER] if draw.random() < 0.1 else ids, "stop"

    engine = WatchedEngine(respond, replace(FIGURES, max_num_seqs=slots))
    rounds = Rounds(
        engine, recipe(reproducible=True, retry_from="last_turn" if retries_turn else "start"), window
    )
    rounds.add(rows)
    return {
        row_id: tuple(by_ids[ids[0]] for ids in generated(row))
        for row_id, row in finished(run_to_end(rounds)).items()
    }


@settings(some, max_examples=10)
@given(
    order=st.permutations(range(20)),
    cohort_size=st.integers(1, 10),
    cohorts_in_flight=st.integers(1, 4),
    slots=st.integers(1, 10),
    retries_turn=st.booleans(),
)
def test_a_reproducible_build_is_the_same_in_any_order_and_window(
    order: list[int], cohort_size: int, cohorts_in_flight: int, slots: int, retries_turn: bool
) -> None:
    outcomes = seeds_by_row(order, window(cohort_size, cohorts_in_flight), slots, retries_turn=retries_turn)
    assert outcomes == seeds_by_row(list(range(20)), window(), 8, retries_turn=retries_turn)


@pytest.mark.parametrize(
    ("messages", "roles"),
    [(1, ["user"]), (3, ["user", "assistant", "user"]), (4, ["user", "assistant"] * 2)],
)
def test_rows_end_with_the_message_the_config_asks_for(messages: int, roles: list[str]) -> None:
    rounds = Rounds(WatchedEngine(unique_words()), recipe(messages_per_row=messages), window())
    rounds.add(range(3))
    for row in finished(run_to_end(rounds)).values():
        assert [message.role for message in row.messages] == roles


def test_verdicts_on_an_executor_give_the_same_rows() -> None:
    def rows(executor: ThreadPoolExecutor | None) -> dict[int, Row]:
        def respond(request: Request) -> Answer:
            draw = random.Random(request.seed)
            ids = [draw.randrange(100, 999) for _ in range(draw.randint(1, 9))]
            return [*ids, MARKER] if draw.random() < 0.2 else ids, "stop"

        rounds = Rounds(WatchedEngine(respond), recipe(reproducible=True), window(), executor=executor)
        rounds.add(range(40))
        return finished(run_to_end(rounds))

    with ThreadPoolExecutor(1) as executor:
        assert rows(executor) == rows(None)


def test_rows_can_be_added_while_others_are_under_way() -> None:
    rounds = Rounds(WatchedEngine(unique_words()), recipe(), window())
    rounds.add(range(5))
    outcomes = rounds.step()
    rounds.add(range(5, 11))
    assert sorted(finished([*outcomes, *run_to_end(rounds)])) == list(range(11))
    assert not rounds.busy
    assert rounds.step() == []


class RefreshedEngine(WatchedEngine):
    """Keeps what it was asked to refresh."""

    def __init__(self, respond: Callable[[Request], Answer], figures: EngineFigures) -> None:
        super().__init__(respond, figures)
        self.refreshed: list[list[int]] = []

    def refresh(self, token_ids: list[int]) -> None:
        self.refreshed.append(token_ids)
        super().refresh(token_ids)


def test_what_waits_for_a_straggler_is_refreshed_with_what_the_engine_has_read_of_it() -> None:
    slow_row = [True]

    def respond(request: Request) -> Answer:
        slow = slow_row and request.prompt_token_ids[-1] == ASKS_ANSWER and slow_row.pop()
        return [7] * (59 if slow else 2), "stop"

    figures = EngineFigures(max_num_seqs=4, kv_cache_tokens=128, max_model_len=100)
    engine = RefreshedEngine(respond, figures)
    tight = AdmissionWindow(figures, cohort_size=4, cohorts_in_flight=1, turns=2, tokens_per_turn=10)
    rounds = Rounds(engine, recipe(), tight)
    rounds.add(range(4))
    run_to_end(rounds)
    waiting = [PREFIX, 7, 7, WAS_ANSWERED, 7, 7, NEXT_USER]
    assert len(engine.refreshed) >= 3
    assert all(ids == waiting for ids in engine.refreshed)
    assert [r.prompt_token_ids for r in engine.requests].count(waiting) == 3


def test_cohorts_start_as_the_engine_has_room_for_them_where_nothing_else_is_said() -> None:
    figures = EngineFigures(max_num_seqs=64, kv_cache_tokens=64 * 600, max_model_len=600)
    engine = WatchedEngine(unique_words(longest=100), figures)
    rounds = Rounds(engine, recipe(), AdmissionWindow(figures, turns=2, tokens_per_turn=100))
    rounds.add(range(400))
    outcomes, busy, last = [], [], []
    while rounds.busy:
        outcomes += rounds.step()
        (busy if rounds.unstarted > rounds.window.live else last).append(engine.outstanding)
    assert sorted(finished(outcomes)) == list(range(400))
    assert sum(busy) / len(busy) > 0.9 * 64
    assert max(busy) < 3 * 64
    # The last conversations start together.
    assert 2 * 64 < max(last) < 4 * 64


def test_completions_without_a_verdict_keep_others_from_starting() -> None:
    figures = EngineFigures(max_num_seqs=16, kv_cache_tokens=10_000, max_model_len=600)
    late = LateExecutor()
    # The first message is the longest: without a running request, a step waits for verdicts.
    rounds = Rounds(
        WatchedEngine(lambda request: ([7] * (1 if request.request_id else 40), "stop"), figures),
        recipe(messages_per_row=1),
        AdmissionWindow(figures, turns=1, tokens_per_turn=100),
        executor=late,
    )
    rounds.add(range(400))
    for _ in range(20):
        rounds.step()
    assert len(rounds.live) <= 3 * 16
