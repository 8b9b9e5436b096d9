"""Cohorts over a simulated engine: every row once, nobody ahead of its cohort, prompts of token ids alone."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.acceptance import rules
from magpie_ray.engine.simulated import Answer, SimulatedEngine
from magpie_ray.errors import RowExhaustedError
from magpie_ray.rounds import Recipe, Rounds
from magpie_ray.types import EngineFigures, Rejection, Request, Row, Sampling, SystemPrompt
from magpie_ray.window import Window

some = settings(max_examples=40, derandomize=True, deadline=None)

FIGURES = EngineFigures(max_num_seqs=8, kv_cache_tokens=10_000, max_model_len=10_000)
USER = Sampling(temperature=1.0, top_p=1.0, max_tokens=50)
ASSISTANT = Sampling(temperature=0.0, top_p=1.0, max_tokens=60)
WINDOW = Window(cohort_size=4, cohorts_in_flight=3)
PREFIX, ASKS_ANSWER, WAS_ANSWERED, NEXT_USER, MARKER = 1, 2, 3, 4, 9


class MarkedFormat:
    """A chat format of one token a marker: prompts can be read back. Records what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, ...], list[list[int]]]] = []

    def prefix(self, system_prompt: str | None) -> tuple[int, ...]:
        return (PREFIX, *(1000 + ord(c) for c in system_prompt or ""))

    def prompt(self, prefix: Sequence[int], messages: Sequence[Sequence[int]]) -> list[int]:
        self.asked.append((tuple(prefix), [list(message) for message in messages]))
        ids = list(prefix)
        for index, message in enumerate(messages):
            ids += message
            last = index + 1 == len(messages)
            ids.append(NEXT_USER if index % 2 else ASKS_ANSWER if last else WAS_ANSWERED)
        return ids


def recipe(**changes: object) -> Recipe:
    ordinary = Recipe(
        chat_format=MarkedFormat(),
        decode=lambda messages: [" ".join(map(str, ids)) for ids in messages],
        rules=rules(markers=(), special_token_ids=frozenset({MARKER}), truncated_roles=frozenset({"user"})),
        user=USER,
        assistant=ASSISTANT,
        messages_per_row=4,
        prompts=(),
        seed=5,
        reproducible=False,
        max_attempts=1000,
    )
    return replace(ordinary, **changes)


class WatchedEngine(SimulatedEngine):
    """Keeps every request submitted, in order."""

    def __init__(self, respond: Callable[[Request], Answer], figures: EngineFigures = FIGURES) -> None:
        super().__init__(respond, figures=figures)
        self.requests: list[Request] = []

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        super().submit(request)


def unique_words(seed: int = 0, *, longest: int = 12, reject_every: int = 0) -> Callable[[Request], Answer]:
    """Messages of random lengths, no two alike; one in `reject_every` holds a marker."""
    draw, used = random.Random(seed), iter(range(10_000, 10**9))

    def respond(request: Request) -> Answer:
        ids = [next(used) for _ in range(draw.randint(1, longest))]
        return [*ids, MARKER] if reject_every and draw.randrange(reject_every) == 0 else ids, "stop"

    return respond


def outcomes(rounds: Rounds) -> list[Row | Rejection]:
    found: list[Row | Rejection] = []
    while rounds.busy:
        found += rounds.step()
        assert rounds.live <= rounds._window.live
    return found


def finished(found: list[Row | Rejection]) -> dict[int, Row]:
    rows = [outcome for outcome in found if isinstance(outcome, Row)]
    assert len({row.row_id for row in rows}) == len(rows), "a row came out twice"
    return {row.row_id: row for row in rows}


def generated(row: Row) -> list[list[int]]:
    return [[int(word) for word in message.text.split()] for message in row.messages]


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
    engine = WatchedEngine(
        unique_words(seed, reject_every=reject_every), replace(FIGURES, max_num_seqs=slots)
    )
    window = Window(cohort_size=cohort_size, cohorts_in_flight=cohorts_in_flight)
    rounds = Rounds(engine, recipe(messages_per_row=messages_per_row), window)
    cohorts: dict[object, list[Any]] = defaultdict(list)
    gone = set[object]()
    submit, leave = rounds._submit, rounds._leave

    def watched_submit(conversation: Any) -> None:
        members = cohorts[conversation.cohort]
        if conversation not in members:
            members.append(conversation)
        if conversation.next_role == "user":
            # A turn begins: everybody who is still in the cohort has ended all turns before.
            assert all(len(c.messages) >= len(conversation.messages) for c in members if c not in gone)
        submit(conversation)

    def watched_leave(conversation: Any) -> None:
        gone.add(conversation)
        leave(conversation)

    rounds._submit, rounds._leave = watched_submit, watched_leave  # type: ignore[method-assign]
    rounds.add(range(num_rows))
    found = outcomes(rounds)
    rows = finished(found)
    assert sorted(rows) == list(range(num_rows))
    assert all(len(row.messages) == messages_per_row for row in rows.values())
    assert all(len(members) <= cohort_size for members in cohorts.values())
    for row_id, row in rows.items():
        rejected = [o for o in found if isinstance(o, Rejection) and o.row_id == row_id]
        assert [rejection.attempt for rejection in rejected] == list(range(1, row.attempt))


def test_nobody_begins_a_turn_before_the_whole_cohort_has_ended_the_one_before() -> None:
    slow_row = [True]

    def respond(request: Request) -> Answer:
        slow = slow_row and request.prompt_token_ids == [PREFIX] and slow_row.pop()
        return list(range(100, 140 if slow else 102)), "stop"

    engine = WatchedEngine(respond)
    rounds = Rounds(engine, recipe(), Window(cohort_size=4, cohorts_in_flight=1))
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
    rounds = Rounds(engine, recipe(messages_per_row=2), Window(cohort_size=4, cohorts_in_flight=1))
    rounds.add(range(4))
    first_row_after = 0
    while not finished(rounds.step()):
        first_row_after += 1
    assert first_row_after < 10


def test_one_turn_builds_start_new_cohorts_while_a_straggler_goes_on() -> None:
    straggler = [True]

    def respond(request: Request) -> Answer:
        return [7] * (40 if straggler and straggler.pop() else 2), "stop"

    rounds = Rounds(
        WatchedEngine(respond), recipe(messages_per_row=1), Window(cohort_size=2, cohorts_in_flight=2)
    )
    rounds.add(range(12))
    rows = [o.row_id for o in outcomes(rounds) if isinstance(o, Row)]
    assert rows == [*range(1, 12), 0]


def test_several_cohorts_are_in_flight() -> None:
    rounds = Rounds(WatchedEngine(unique_words()), recipe(), WINDOW)
    rounds.add(range(30))
    rounds.step()
    assert (rounds.live, rounds.unstarted) == (12, 18)


def test_a_part_of_a_cohort_waits_while_the_batch_is_full() -> None:
    engine = WatchedEngine(unique_words())
    rounds = Rounds(engine, recipe(), WINDOW)
    rounds.add(range(9))
    rounds.step()
    assert (rounds.live, rounds.unstarted) == (8, 1)
    rounds.add(range(9, 12))
    rounds.step()
    assert (rounds.live, rounds.unstarted) == (12, 0)


def test_a_rejected_row_joins_a_later_cohort() -> None:
    rejects = iter([True])
    engine = WatchedEngine(lambda request: ([MARKER] if next(rejects, False) else [7, 7], "stop"))
    rounds = Rounds(engine, recipe(), Window(cohort_size=4, cohorts_in_flight=2))
    rounds.add(range(4))
    cohorts: dict[tuple[int, int], object] = {}
    found: list[Row | Rejection] = []
    while rounds.busy:
        found += rounds.step()
        for c in rounds._in_engine.values():
            cohorts[c.row_id, c.attempt] = c.cohort
    assert finished(found)[0].attempt == 2
    assert cohorts[0, 2] not in {cohort for key, cohort in cohorts.items() if key != (0, 2)}
    assert {row_id: row.attempt for row_id, row in finished(found).items()} == {0: 2, 1: 1, 2: 1, 3: 1}


def test_a_rejection_tells_where_why_and_what_it_cost() -> None:
    answers = iter([([50, 51], "stop"), ([60], "stop"), ([70, MARKER], "stop")])
    engine = WatchedEngine(lambda request: next(answers, ([7], "stop")))
    rounds = Rounds(engine, recipe(), Window(cohort_size=1, cohorts_in_flight=1))
    rounds.add([0])
    [rejection] = [o for o in outcomes(rounds) if isinstance(o, Rejection)]
    assert rejection == Rejection(
        row_id=0,
        attempt=1,
        role="user",
        turn=2,
        reason="role_marker",
        example=f"70 {MARKER}",
        user_tokens=3 + 3,
        assistant_tokens=2,
    )


def test_a_row_out_of_attempts_ends_the_job_with_reason_example_and_remedy() -> None:
    answers = iter([([], "stop"), ([70, MARKER], "stop"), ([71, MARKER], "stop")])
    engine = WatchedEngine(lambda request: next(answers))
    rounds = Rounds(engine, recipe(max_attempts=3), WINDOW)
    rounds.add([17])
    with pytest.raises(RowExhaustedError) as caught:
        outcomes(rounds)
    for part in ("row 17", "3 times", "2 of them for 'role_marker'", f"'70 {MARKER}'", "lower sampling.user"):
        assert part in str(caught.value)


def test_prompts_are_the_prefix_and_the_messages_as_token_ids_from_start_to_end() -> None:
    form = MarkedFormat()
    engine = WatchedEngine(unique_words())
    prompts = (SystemPrompt(text="a", weight=0.5), SystemPrompt(text="b", weight=0.5))
    rounds = Rounds(engine, recipe(chat_format=form, prompts=prompts), WINDOW)
    rounds.add(range(10))
    rows = finished(outcomes(rounds))
    asked = list(form.asked)
    sent = [tuple(request.prompt_token_ids) for request in engine.requests]
    assert sent == [tuple(form.prompt(prefix, messages)) for prefix, messages in asked]
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
    rounds = Rounds(engine, recipe(), WINDOW)
    rounds.add(range(5))
    outcomes(rounds)
    for request in engine.requests:
        answers = request.prompt_token_ids[-1] == ASKS_ANSWER
        assert request.sampling == (ASSISTANT if answers else USER)
        assert request.seed is None


def test_a_conversation_that_outgrows_the_context_is_rejected_and_tried_again() -> None:
    lengths = iter([30, *[3] * 100])
    engine = WatchedEngine(lambda request: ([7] * next(lengths), "stop"), replace(FIGURES, max_model_len=35))
    rounds = Rounds(engine, recipe(), WINDOW)
    rounds.add([0])
    # 1 + 30 + 1 prompt tokens leave room for an answer, but not for another turn.
    found = outcomes(rounds)
    [rejection] = [o for o in found if isinstance(o, Rejection)]
    assert (rejection.reason, rejection.role, rejection.turn) == ("context_full", "user", 2)
    assert finished(found)[0].attempt == 2


def test_a_first_prompt_that_never_fits_exhausts_its_row_without_reaching_the_engine() -> None:
    engine = WatchedEngine(unique_words(), replace(FIGURES, max_model_len=1))
    rounds = Rounds(engine, recipe(max_attempts=3), WINDOW)
    rounds.add(range(6))
    with pytest.raises(RowExhaustedError, match=r"'context_full'.*engine\.max_model_len"):
        outcomes(rounds)
    assert engine.requests == []


def seeds_by_row(rows: list[int], window: Window, slots: int) -> dict[int, tuple[int | None, ...]]:
    """The seed of each message of each accepted attempt, with messages that depend on their seed alone."""
    by_ids: dict[int, int] = {}

    def respond(request: Request) -> Answer:
        assert request.seed is not None
        draw = random.Random(request.seed)
        ids = [draw.randrange(10**6, 10**12) for _ in range(draw.randint(1, 9))]
        by_ids[ids[0]] = request.seed
        return [*ids, MARKER] if draw.random() < 0.1 else ids, "stop"

    engine = WatchedEngine(respond, replace(FIGURES, max_num_seqs=slots))
    rounds = Rounds(engine, recipe(reproducible=True), window)
    rounds.add(rows)
    return {
        row_id: tuple(by_ids[ids[0]] for ids in generated(row))
        for row_id, row in finished(outcomes(rounds)).items()
    }


@settings(some, max_examples=10)
@given(
    order=st.permutations(range(20)),
    cohort_size=st.integers(1, 10),
    cohorts_in_flight=st.integers(1, 4),
    slots=st.integers(1, 10),
)
def test_a_reproducible_build_is_the_same_in_any_order_and_window(
    order: list[int], cohort_size: int, cohorts_in_flight: int, slots: int
) -> None:
    window = Window(cohort_size=cohort_size, cohorts_in_flight=cohorts_in_flight)
    assert seeds_by_row(order, window, slots) == seeds_by_row(list(range(20)), WINDOW, 8)


@pytest.mark.parametrize(
    ("messages", "roles"),
    [(1, ["user"]), (3, ["user", "assistant", "user"]), (4, ["user", "assistant"] * 2)],
)
def test_rows_end_with_the_message_the_config_asks_for(messages: int, roles: list[str]) -> None:
    rounds = Rounds(WatchedEngine(unique_words()), recipe(messages_per_row=messages), WINDOW)
    rounds.add(range(3))
    for row in finished(outcomes(rounds)).values():
        assert [message.role for message in row.messages] == roles


def test_judging_on_an_executor_gives_the_same_rows() -> None:
    def rows(executor: ThreadPoolExecutor | None) -> dict[int, Row]:
        def respond(request: Request) -> Answer:
            draw = random.Random(request.seed)
            ids = [draw.randrange(100, 999) for _ in range(draw.randint(1, 9))]
            return [*ids, MARKER] if draw.random() < 0.2 else ids, "stop"

        rounds = Rounds(WatchedEngine(respond), recipe(reproducible=True), WINDOW, executor=executor)
        rounds.add(range(40))
        return finished(outcomes(rounds))

    with ThreadPoolExecutor(1) as executor:
        assert rows(executor) == rows(None)


def test_rows_can_be_added_while_others_are_under_way() -> None:
    rounds = Rounds(WatchedEngine(unique_words()), recipe(), WINDOW)
    rounds.add(range(5))
    found = rounds.step()
    rounds.add(range(5, 11))
    assert sorted(finished([*found, *outcomes(rounds)])) == list(range(11))
    assert not rounds.busy
    assert rounds.step() == []
