"""The simulated scoring engine: batches in order, and the limits of a real one."""

import pytest

from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.engine.scoring import ScoreRequest
from magpie_ray.engine.simulated.scoring import SimulatedScoringEngine
from magpie_ray.errors import EngineError

FIGURES = EngineFigures(max_num_seqs=2, kv_cache_tokens=100, max_model_len=8)


def engine(vector_size: int | None = None) -> SimulatedScoringEngine:
    return SimulatedScoringEngine(
        lambda request: [float(request.prompt_token_ids[0])], figures=FIGURES, vector_size=vector_size
    )


def asking(number: int, tokens: int = 3) -> ScoreRequest:
    return ScoreRequest(request_id=number, prompt_token_ids=[number] * tokens, asked=(1,))


def test_a_step_answers_a_batch_in_the_order_of_submission() -> None:
    simulated = engine()
    for number in (5, 3, 4):
        simulated.submit(asking(number))
    assert [(score.request_id, score.numbers) for score in simulated.step()] == [(5, [5.0]), (3, [3.0])]
    assert simulated.outstanding == 1
    assert [score.request_id for score in simulated.step()] == [4]
    stats = simulated.stats()
    assert (stats.steps, stats.slots, stats.running, stats.prompt_tokens) == (2, 4, 3, 9)
    assert stats.generated_tokens == 3


def test_a_prompt_that_leaves_no_room_for_a_token_is_refused_unless_none_is_written() -> None:
    with pytest.raises(EngineError, match="a prompt of 8 tokens does not fit"):
        engine().submit(asking(1, tokens=8))
    engine(vector_size=1).submit(asking(1, tokens=8))
    with pytest.raises(EngineError, match="a prompt of 9 tokens"):
        engine(vector_size=1).submit(asking(1, tokens=9))


def test_an_aborted_request_is_not_answered() -> None:
    simulated = engine()
    for number in range(4):
        simulated.submit(asking(number))
    simulated.abort([0, 2])
    assert [score.request_id for score in simulated.step()] == [1, 3]
