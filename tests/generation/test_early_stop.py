"""When a job gives up: a row or a prompt group that can't be accepted; and when bad luck does not end it."""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from magpie_ray import draws
from magpie_ray.engine.protocol import Request
from magpie_ray.engine.simulated.engine import Answer
from magpie_ray.errors import AcceptRateError, RowExhaustedError
from magpie_ray.generation.recipe import SamplingPair, Start
from magpie_ray.generation.rounds import Rounds
from magpie_ray.types import Input, Rejection, Row, SystemPrompt
from tests.support.rounds import (
    ASKS_ANSWER,
    ASSISTANT,
    FIGURES,
    MARKER,
    USER,
    WatchedEngine,
    finished,
    recipe,
    run_to_end,
    window,
)

SLOTS = 64
LARGE = replace(FIGURES, max_num_seqs=SLOTS, kv_cache_tokens=10**6)


def endless(request: Request) -> Answer:
    return [7] * 1000, "stop"


def prompts(count: int) -> tuple[SystemPrompt, ...]:
    """System prompts that are one character each, by which `luck` knows them."""
    letters = [chr(ord("A") + number) for number in range(count)]
    return tuple(SystemPrompt(text=letter, weight=1 / count, key=f"key-{letter}") for letter in letters)


def luck(rejected: Callable[[str], float], *, seed: int = 1, longest: int = 3) -> Callable[[Request], Answer]:
    """Messages of random lengths, rejected at random: with the probability of the row's system prompt."""
    draw = random.Random(seed)

    def respond(request: Request) -> Answer:
        prompt = chr(request.prompt_token_ids[1] - 1000) if request.prompt_token_ids[1:2] > [1000] else ""
        ids = [draw.randrange(10_000, 20_000) for _ in range(draw.randint(1, longest))]
        return [*ids, MARKER] if draw.random() < rejected(prompt) else ids, "stop"

    return respond


def build(
    respond: Callable[[Request], Answer], rows: int, *, partition: int = 500, **changes: object
) -> Iterator[Row | Rejection]:
    """Outcomes of a build of so many rows by one engine, which gets a partition whenever it runs short."""
    changes = {"messages_per_row": 1, "max_attempts": "auto", "min_accept_rate": 0.1} | changes
    rounds = Rounds(WatchedEngine(respond, LARGE), recipe(**changes), window(16, SLOTS // 16))
    start = 0
    while start < rows or rounds.busy:
        if start < rows and rounds.unstarted < SLOTS:
            rounds.add(range(start, start := min(rows, start + partition)))
        yield from rounds.step()


def ended(outcomes: Iterator[Row | Rejection], error: type[Exception]) -> tuple[list[Row | Rejection], str]:
    """The outcomes until the error, and its message."""
    came: list[Row | Rejection] = []
    with pytest.raises(error) as caught:
        came.extend(outcomes)
    return came, str(caught.value)


def test_a_number_of_attempts_ends_the_job_with_reason_example_and_remedy() -> None:
    answers = iter([([], "stop"), ([70, MARKER], "stop"), ([71, MARKER], "stop")])
    engine = WatchedEngine(lambda request: next(answers))
    rounds = Rounds(engine, recipe(max_attempts=3), window())
    rounds.add([17])
    with pytest.raises(RowExhaustedError) as caught:
        run_to_end(rounds)
    for part in ("row 17", "3 times", "2 role_marker", f"'70 {MARKER}'", "lower sampling.user"):
        assert part in str(caught.value)


@pytest.mark.parametrize("seed", range(3))
def test_a_build_with_half_of_its_attempts_rejected_finishes(seed: int) -> None:
    outcomes = list(build(luck(lambda prompt: 0.5, seed=seed), 2_000))
    assert len(finished(outcomes)) == 2_000
    worst = Counter(outcome.row_id for outcome in outcomes if isinstance(outcome, Rejection))
    assert max(worst.values()) >= 8  # the number of attempts that used to end a build


def test_a_build_with_one_prompt_of_twenty_that_is_mostly_rejected_finishes() -> None:
    def rejected(prompt: str) -> float:
        return 0.85 if prompt == "C" else 0.05

    rows = finished(list(build(luck(rejected), 20_000, prompts=prompts(20))))
    assert len(rows) == 20_000
    assert max(row.attempt for row in rows.values()) > 30


@pytest.mark.parametrize("retry_from", ["start", "last_turn"])
def test_a_build_of_several_turns_finishes(retry_from: str) -> None:
    respond = luck(lambda prompt: 0.2)
    outcomes = list(build(respond, 500, messages_per_row=6, retry_from=retry_from))
    assert len(finished(outcomes)) == 500


def test_turns_that_spoil_what_follows_them_are_no_reason_to_give_up() -> None:
    # Half of the first turns make a second turn impossible, so continuing after them is in vain.
    draw, spoiled = random.Random(3), 77

    def respond(request: Request) -> Answer:
        if request.prompt_token_ids[-1] == ASKS_ANSWER:
            return [7], "stop"
        if len(request.prompt_token_ids) > 1:
            return ([MARKER] if spoiled in request.prompt_token_ids else [7]), "stop"
        return [spoiled if draw.random() < 0.5 else 7], "stop"

    rows = finished(list(build(respond, 1_000, messages_per_row=4, retry_from="last_turn")))
    assert len(rows) == 1_000


def test_attempts_that_continue_count_as_one_with_the_attempt_that_they_continue() -> None:
    # At first, all attempts start from the first turn, and 6% of those finish their row. Of the rows' draws,
    # which go on as long as no turn fails twice, 32% do.
    draw = random.Random(5)

    def respond(request: Request) -> Answer:
        asks_answer = request.prompt_token_ids[-1] == ASKS_ANSWER
        return ([7] if asks_answer or draw.random() < 0.5 else [MARKER]), "stop"

    outcomes = list(build(respond, 500, messages_per_row=8, retry_from="last_turn", min_accept_rate=0.25))
    assert len(finished(outcomes)) == 500


@pytest.mark.parametrize("number", [1, 20, 60])
def test_a_prompt_that_is_never_accepted_is_named_within_200_attempts(number: int) -> None:
    respond = luck(lambda prompt: 1.0 if prompt == "A" else 0.1)
    outcomes, error = ended(build(respond, 20_000, prompts=prompts(number)), AcceptRateError)
    bad = [outcome for outcome in outcomes if outcome.system_prompt and outcome.system_prompt.text == "A"]
    assert all(isinstance(outcome, Rejection) for outcome in bad)
    attempts = re.match(r"(\d+) of the last (\d+) attempts with system_prompt\.key-A \('A'\)", error)
    assert attempts
    assert int(attempts[1]) == int(attempts[2]) <= 200
    assert len(bad) <= 200
    for part in (f"{attempts[1]} role_marker", "acceptance.min_accept_rate is 0.1", "what to try"):
        assert part in error


def test_a_group_is_named_by_its_sampling_settings_too() -> None:
    pair = SamplingPair(user=USER, assistant=ASSISTANT, weight=0.5)
    strange = replace(USER, settings=USER.settings.model_copy(update={"temperature": 9.0}))
    samplings = (pair, replace(pair, user=strange))

    def respond(request: Request) -> Answer:
        return ([MARKER] if request.sampling is strange else [7]), "stop"

    with pytest.raises(AcceptRateError, match=r"attempts with sampling_key 1 were rejected"):
        list(build(respond, 5_000, samplings=samplings))


def test_a_model_that_never_ends_its_turns_stops_the_job_with_its_first_messages() -> None:
    engine = WatchedEngine(endless, replace(LARGE, max_num_seqs=256))
    made = recipe(max_attempts="auto", min_accept_rate=0.1)
    rounds = Rounds(engine, made, window(64, 12))
    rounds.add(range(100_000))
    with pytest.raises(AcceptRateError) as caught:
        run_to_end(rounds)
    assert engine.stats().steps == USER.settings.max_tokens
    for part in (
        "attempts were rejected; acceptance.min_accept_rate is 0.1",
        "truncated, the user's message, as in turn 1: '7 7 7",
        "sampling.user.max_tokens",
        "use the instruct or chat version",
    ):
        assert part in str(caught.value)


def test_a_model_that_writes_nothing_of_use_is_found_where_every_row_has_a_prompt_of_its_own() -> None:
    with pytest.raises(AcceptRateError, match=r"attempts with all system prompts .* together were rejected"):
        list(build(luck(lambda prompt: 1.0), 20_000, prompts=prompts(1_500)))


def test_a_row_that_is_never_accepted_is_named_where_it_is_the_only_one_of_its_prompt() -> None:
    # Of 1,500 prompts, no more than the latest 1,024 are remembered.
    made = prompts(1_500)
    bad = draws.system_prompt_of(700, seed=recipe().seed, prompts=made)
    assert bad
    outcomes = build(luck(lambda prompt: 1.0 if prompt == bad.text else 0.3), 3_000, prompts=made)
    with pytest.raises(AcceptRateError, match=re.escape(f"system_prompt.{bad.key}")):
        list(outcomes)


def test_rows_of_rare_prompts_are_not_judged_by_the_other_prompts() -> None:
    # A row of every second prompt needs seven attempts, one of the others one.
    rows = finished(list(build(luck(lambda prompt: 0.85 * (ord(prompt) % 2)), 1_500, prompts=prompts(1_500))))
    assert len(rows) == 1_500


def test_a_row_that_differs_from_its_group_is_named() -> None:
    draw, rows, rates = random.Random(4), iter(range(10**9)), [0.3]

    def respond(request: Request) -> Answer:
        return [next(rows)], "stop"

    def rule(utterance: object, dialogue: object) -> str | None:
        return "unlucky" if draw.random() < rates[-1] else None

    made = recipe(messages_per_row=1, max_attempts="auto", min_accept_rate=0.1, rules={"mine": rule})
    rounds = Rounds(WatchedEngine(respond, LARGE), made, window(16, 4))
    rounds.add(range(5_000))
    run_to_end(rounds)
    rates.append(1.0)
    rounds.add([5_000])
    with pytest.raises(RowExhaustedError) as caught:
        run_to_end(rounds)
    found = re.match(r"row 5000 was rejected (\d+) times and chance does not explain it", str(caught.value))
    assert found
    assert 30 <= int(found[1]) <= 60
    assert "attempts were accepted" in str(caught.value)


def test_nothing_is_tried_for_ever_where_no_rate_is_asked_for() -> None:
    outcomes = build(luck(lambda prompt: 1.0, longest=1), 10, min_accept_rate=0)
    with pytest.raises(
        AcceptRateError, match=r"min_accept_rate is 0, and max_attempts: auto goes on at 0\.001"
    ):
        list(outcomes)


def test_a_rate_of_zero_lets_a_build_go_on_that_accepts_few() -> None:
    rows = finished(list(build(luck(lambda prompt: 0.97), 200, min_accept_rate=0)))
    assert len(rows) == 200


def test_with_a_number_of_attempts_and_no_rate_that_number_alone_ends_a_build() -> None:
    outcomes = build(luck(lambda prompt: 1.0), 1, min_accept_rate=0, max_attempts=3_000)
    with pytest.raises(RowExhaustedError, match="was rejected 3000 times"):
        list(outcomes)


def test_a_few_rows_are_given_up_on_all_the_same() -> None:
    outcomes, _ = ended(build(endless, 3), AcceptRateError)
    assert len(outcomes) <= 200


def test_questions_may_be_good_and_answers_never() -> None:
    def respond(request: Request) -> Answer:
        return ([] if request.prompt_token_ids[-1] == ASKS_ANSWER else [7, 7]), "stop"

    with pytest.raises(AcceptRateError, match=r"empty, the assistant's message.*\n.*sampling\.assistant"):
        list(build(respond, 1000, messages_per_row=4))


def test_the_reasons_are_told_with_the_most_frequent_first() -> None:
    draw = random.Random(1)
    with pytest.raises(AcceptRateError) as caught:
        list(build(lambda request: (draw.choice([[MARKER], [], []]), "stop"), 1000))
    error = str(caught.value)
    assert re.search(r"1\d\d empty, .*\n.*what to try.*\n.*\d\d role_marker, .*\n.*what to try", error), error


def test_short_messages_that_end_first_do_not_speak_for_the_others() -> None:
    draw = random.Random(1)
    short = [draw.random() < 0.3 for _ in range(2000)]

    def respond(request: Request) -> Answer:
        return ([] if short[request.request_id % len(short)] else [7] * 9), "stop"

    engine = WatchedEngine(respond, replace(FIGURES, max_num_seqs=1000))
    rounds = Rounds(engine, recipe(messages_per_row=2, min_accept_rate=0.3), window(1000, 1))
    rounds.add(range(1000))
    assert sum(short[:1000]) > 200
    assert len(finished(run_to_end(rounds))) == 1000


def test_a_group_that_accepts_nothing_any_more_stops_the_job() -> None:
    good = iter(range(3_000))

    def respond(request: Request) -> Answer:
        return ([7] if next(good, None) is not None else [MARKER]), "stop"

    outcomes, _ = ended(build(respond, 100_000), AcceptRateError)
    assert len(outcomes) < 3_500


def test_discarded_rows_have_no_part_in_giving_up_on_a_build() -> None:
    rounds = Rounds(WatchedEngine(endless), recipe(min_accept_rate=0.1), window())
    for start in range(0, 2000, 10):
        rounds.add(range(start, start + 10))
        for _ in range(3):
            rounds.step()
        rounds.discard(range(start, start + 10))
    rounds.add(range(1000))
    with pytest.raises(AcceptRateError):
        run_to_end(rounds)


def test_rejections_that_end_before_their_rows_are_discarded_do_not_speak_for_the_others() -> None:
    # Half of the messages are empty at once, the others take long. Another actor commits the rows meanwhile.
    draw = random.Random(1)
    engine = WatchedEngine(
        lambda request: ([] if draw.random() < 0.5 else [7] * 40, "stop"), replace(LARGE, max_num_seqs=512)
    )
    rounds = Rounds(engine, recipe(messages_per_row=1, min_accept_rate=0.1), window(512, 1))
    rounds.add(range(600))
    rejected = sum(len(rounds.step()) for _ in range(20))
    assert rejected > 200
    rounds.discard(range(600))
    rounds.add(range(600, 1_200))
    assert len(finished(run_to_end(rounds))) == 600


def test_rows_that_were_discarded_and_come_again_are_counted_again() -> None:
    rounds = Rounds(WatchedEngine(endless, LARGE), recipe(min_accept_rate=0.1), window(16, 4))
    rounds.add(range(40))
    for _ in range(3):
        rounds.step()
        rounds.discard(range(1, 40))
        rounds.add(range(1, 40))
    with pytest.raises(AcceptRateError):
        run_to_end(rounds)


def test_a_row_that_is_rejected_often_lets_the_other_rows_of_its_partition_go_first() -> None:
    draw, started = random.Random(2), Counter[int]()

    def respond(request: Request) -> Answer:
        return ([MARKER] if draw.random() < 0.9 else [7]), "stop"

    unlucky: list[int] = []
    for outcome in build(respond, 400, min_accept_rate=0, partition=400):
        started[outcome.row_id] += 1
        if isinstance(outcome, Rejection) and started[outcome.row_id] == 17 and len(started) < 300:
            unlucky.append(outcome.row_id)
    # Nobody has been tried more than that before all others had been tried.
    assert unlucky == []


class AMillionInputs:
    """Row i has input i, whose prompt is a character that `luck` knows."""

    number = 1_000_000

    def start_of(self, row_id: int) -> Start:
        letter = chr(ord("A") + row_id % 900)
        return Start(SystemPrompt(text=letter), (1, 1000 + ord(letter)), None, Input(input_id=row_id))


def test_rows_with_inputs_are_one_group_and_carry_their_inputs() -> None:
    rows = finished(list(build(luck(lambda prompt: 0.3), 1_000, inputs=AMillionInputs())))
    assert all(row.input == Input(input_id=row_id) for row_id, row in rows.items())
    _, error = ended(build(luck(lambda prompt: 1.0), 1_000, inputs=AMillionInputs()), AcceptRateError)
    assert re.match(r"\d+ of the last \d+ attempts were rejected; ", error)


def test_a_row_that_can_not_be_accepted_is_named_with_its_input() -> None:
    hopeless = chr(ord("A") + 7)
    respond = luck(lambda prompt: 1.0 if prompt == hopeless else 0.2)
    _, error = ended(build(respond, 900, inputs=AMillionInputs()), RowExhaustedError)
    assert error.startswith("row 7 (input 7) was rejected ")
