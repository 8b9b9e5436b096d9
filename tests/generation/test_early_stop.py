"""When a job gives up: a row out of attempts, or a model that writes nothing that counts."""

import random
import re
from dataclasses import replace

import pytest

from magpie_ray.engine.protocol import Request
from magpie_ray.engine.simulated.engine import Answer
from magpie_ray.errors import AcceptRateError, RowExhaustedError
from magpie_ray.generation.early_stop import TRIAL_ATTEMPTS
from magpie_ray.generation.rounds import Rounds
from tests.support.rounds import (
    ASKS_ANSWER,
    FIGURES,
    MARKER,
    USER,
    WatchedEngine,
    finished,
    recipe,
    run_to_end,
    window,
)


def endless(request: Request) -> Answer:
    return [7] * 1000, "stop"


def test_a_row_out_of_attempts_ends_the_job_with_reason_example_and_remedy() -> None:
    answers = iter([([], "stop"), ([70, MARKER], "stop"), ([71, MARKER], "stop")])
    engine = WatchedEngine(lambda request: next(answers))
    rounds = Rounds(engine, recipe(max_attempts=3), window())
    rounds.add([17])
    with pytest.raises(RowExhaustedError) as caught:
        run_to_end(rounds)
    for part in ("row 17", "3 times", "2 role_marker", f"'70 {MARKER}'", "lower sampling.user"):
        assert part in str(caught.value)


def test_a_model_that_never_ends_its_turns_stops_the_job_with_its_first_messages() -> None:
    engine = WatchedEngine(endless, replace(FIGURES, max_num_seqs=256))
    rounds = Rounds(engine, recipe(max_attempts=8, min_accept_rate=0.1), window(64, 12))
    rounds.add(range(100_000))
    with pytest.raises(AcceptRateError) as caught:
        run_to_end(rounds)
    assert engine.stats().steps == USER.settings.max_tokens
    for part in (
        f"116 of an engine's first {TRIAL_ATTEMPTS} attempts were rejected",
        "acceptance.min_accept_rate is 0.1",
        "116 truncated, the user's message, as in turn 1: '7 7 7",
        "sampling.user.max_tokens",
        "use the instruct or chat version",
    ):
        assert part in str(caught.value)


def test_in_a_small_build_it_is_the_attempts_of_a_row_that_end_the_job() -> None:
    rounds = Rounds(WatchedEngine(endless), recipe(max_attempts=8, min_accept_rate=0.1), window())
    rounds.add(range(3))
    with pytest.raises(RowExhaustedError, match="was rejected 8 times"):
        run_to_end(rounds)


def test_a_few_rows_with_many_attempts_are_given_up_on_all_the_same() -> None:
    engine = WatchedEngine(endless)
    rounds = Rounds(engine, recipe(max_attempts=10_000, min_accept_rate=0.1), window())
    rounds.add(range(3))
    with pytest.raises(AcceptRateError):
        run_to_end(rounds)
    assert len(engine.requests) <= TRIAL_ATTEMPTS


def test_questions_may_be_good_and_answers_never() -> None:
    def respond(request: Request) -> Answer:
        return ([] if request.prompt_token_ids[-1] == ASKS_ANSWER else [7, 7]), "stop"

    rounds = Rounds(WatchedEngine(respond), recipe(min_accept_rate=0.1), window())
    rounds.add(range(1000))
    with pytest.raises(AcceptRateError, match=r"116 empty, the assistant's message.*\n.*sampling\.assistant"):
        run_to_end(rounds)


def test_the_reasons_are_told_with_the_most_frequent_first() -> None:
    kinds = iter([[MARKER], [], []] * 100)
    rounds = Rounds(
        WatchedEngine(lambda request: (next(kinds), "stop")), recipe(min_accept_rate=0.5), window()
    )
    rounds.add(range(1000))
    with pytest.raises(AcceptRateError) as caught:
        run_to_end(rounds)
    error = str(caught.value)
    assert re.search(r"4\d empty, .*\n.*what to try.*\n.*2\d role_marker, .*\n.*what to try", error), error


def test_short_messages_that_end_first_do_not_speak_for_the_others() -> None:
    draw = random.Random(1)
    short = [draw.random() < 0.3 for _ in range(2000)]

    def respond(request: Request) -> Answer:
        return ([] if short[request.request_id % len(short)] else [7] * 9), "stop"

    engine = WatchedEngine(respond, replace(FIGURES, max_num_seqs=1000))
    rounds = Rounds(engine, recipe(messages_per_row=2, min_accept_rate=0.3), window(1000, 1))
    rounds.add(range(1000))
    assert sum(short[:1000]) > TRIAL_ATTEMPTS
    assert len(finished(run_to_end(rounds))) == 1000


def test_after_enough_good_attempts_a_job_goes_on_whatever_comes() -> None:
    accepted = iter([True] * 13)  # a tenth of the first attempts
    engine = WatchedEngine(lambda request: ([7] if next(accepted, False) else [MARKER], "stop"))
    rounds = Rounds(engine, recipe(messages_per_row=1, min_accept_rate=0.1), window())
    rounds.add(range(1000))
    for _ in range(2000):
        rounds.step()
    assert len(engine.requests) > 10 * TRIAL_ATTEMPTS


def test_discarded_rows_have_no_part_in_giving_up_on_a_build() -> None:
    engine = WatchedEngine(endless)
    rounds = Rounds(engine, recipe(min_accept_rate=0.1), window())
    for start in range(0, 10 * TRIAL_ATTEMPTS, 10):
        rounds.add(range(start, start + 10))
        for _ in range(3):
            rounds.step()
        rounds.discard(range(start, start + 10))
    rounds.add(range(1000))
    with pytest.raises(AcceptRateError):
        run_to_end(rounds)
