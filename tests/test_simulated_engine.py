"""The engine in virtual time behaves as vLLM does where it matters."""

import pytest

from magpie_ray.engine.simulated import Answer, SimulatedEngine
from magpie_ray.errors import EngineError
from magpie_ray.types import Completion, EngineFigures, Request, Sampling


def request(number: int, *, prompt: int = 3, max_tokens: int = 100) -> Request:
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=max_tokens)
    return Request(request_id=number, prompt_token_ids=[0] * prompt, sampling=sampling)


def engine(answers: dict[int, Answer], *, slots: int = 4, max_model_len: int = 50) -> SimulatedEngine:
    figures = EngineFigures(max_num_seqs=slots, kv_cache_tokens=1000, max_model_len=max_model_len)
    return SimulatedEngine(lambda request: answers[request.request_id], figures=figures)


def run(simulated: SimulatedEngine) -> dict[int, tuple[int, Completion]]:
    """Completions by request, each with the step it came in."""
    found = {}
    while simulated.outstanding:
        for completion in simulated.step():
            found[completion.request_id] = (simulated.stats().steps, completion)
    return found


def test_a_message_takes_a_step_a_token_and_one_for_its_end() -> None:
    simulated = engine({1: ([7, 8, 9], "stop"), 2: ([], "stop")})
    simulated.submit(request(1))
    simulated.submit(request(2))
    assert simulated.outstanding == 2
    found = run(simulated)
    assert {number: step for number, (step, _) in found.items()} == {2: 1, 1: 4}
    assert found[1][1] == Completion(request_id=1, token_ids=[7, 8, 9], finish_reason="stop", num_tokens=4)


def test_what_exceeds_max_num_seqs_waits_in_order() -> None:
    simulated = engine({n: ([1], "stop") for n in range(5)}, slots=2)
    for number in range(5):
        simulated.submit(request(number))
    assert {n: step for n, (step, _) in run(simulated).items()} == {0: 2, 1: 2, 2: 4, 3: 4, 4: 6}


def test_an_answer_that_does_not_fit_max_tokens_with_its_end_is_cut_for_length() -> None:
    simulated = engine({1: ([7, 8, 9], "stop"), 2: ([7, 8, 9], "stop")})
    simulated.submit(request(1, max_tokens=3))
    simulated.submit(request(2, max_tokens=4))
    found = run(simulated)
    assert found[1][1] == Completion(request_id=1, token_ids=[7, 8, 9], finish_reason="length", num_tokens=3)
    assert found[2][1].finish_reason == "stop"


def test_an_answer_is_cut_where_the_context_ends() -> None:
    simulated = engine({1: ([5] * 20, "stop")}, max_model_len=10)
    simulated.submit(request(1, prompt=8))
    [(_, completion)] = run(simulated).values()
    assert (completion.token_ids, completion.finish_reason) == ([5, 5], "length")


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    with pytest.raises(EngineError, match=r"does not fit engine\.max_model_len 10"):
        engine({}, max_model_len=10).submit(request(1, prompt=10))


def test_statistics_count_steps_and_tokens() -> None:
    simulated = engine({1: ([7, 8, 9], "stop"), 2: ([7], "length")})
    simulated.submit(request(1, prompt=4))
    simulated.submit(request(2, prompt=6))
    run(simulated)
    stats = simulated.stats()
    assert (stats.steps, stats.prompt_tokens, stats.generated_tokens) == (4, 10, 5)


def test_an_aborted_request_frees_its_slot_and_never_comes_out() -> None:
    simulated = engine({n: ([1] * 9, "stop") for n in range(4)}, slots=2)
    for number in range(4):
        simulated.submit(request(number))
    simulated.step()
    simulated.abort([0, 2])  # one that runs, one that waits
    assert simulated.outstanding == 2
    assert {n: step for n, (step, _) in run(simulated).items()} == {1: 10, 3: 11}


def test_a_closed_engine_has_nothing_outstanding() -> None:
    simulated = engine({1: ([7], "stop"), 2: ([7], "stop")}, slots=1)
    simulated.submit(request(1))
    simulated.submit(request(2))
    simulated.step()
    simulated.close()
    assert simulated.outstanding == 0
