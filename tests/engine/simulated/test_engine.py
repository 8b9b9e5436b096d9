"""The engine in virtual time behaves as vLLM does where it matters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import Completion, EngineFigures, Request, Sampling
from magpie_ray.engine.simulated.engine import Answer, SimulatedEngine
from magpie_ray.engine.simulated.kv_cache import BLOCK_TOKENS
from magpie_ray.engine.step_cost import StepCost
from magpie_ray.errors import EngineError


def request(number: int, *, prompt: int = 3, max_tokens: int = 100) -> Request:
    sampling = Sampling(settings=SamplingSettings(max_tokens=max_tokens))
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


def caching_engine(
    answers: dict[int, int], *, cache: int, slots: int = 4, budget: int = 8192, cost: StepCost | None = None
) -> SimulatedEngine:
    """Answers of so many tokens, each of a token of its own."""
    figures = EngineFigures(max_num_seqs=slots, kv_cache_tokens=cache, max_model_len=cache)

    def respond(request: Request) -> Answer:
        return [1000 + request.request_id] * answers[request.request_id], "length"

    options = {"cost": cost} if cost else {}
    return SimulatedEngine(respond, figures=figures, max_num_batched_tokens=budget, **options)


def ask(number: int, token_ids: list[int]) -> Request:
    return Request(
        request_id=number,
        prompt_token_ids=token_ids,
        sampling=Sampling(settings=SamplingSettings(max_tokens=10**6)),
    )


def test_a_prompt_is_read_without_the_whole_blocks_that_the_cache_holds() -> None:
    simulated = caching_engine({1: 40, 2: 5}, cache=1600)
    simulated.submit(ask(1, list(range(50))))
    [(_, first)] = run(simulated).values()
    # 90 tokens are known, the last of them was written and never read.
    simulated.submit(ask(2, [*range(50), *first.token_ids, 7]))
    run(simulated)
    stats = simulated.stats()
    assert stats.prompt_tokens == 50 + 91
    assert stats.cached_tokens == 89 // BLOCK_TOKENS * BLOCK_TOKENS


def test_requests_that_start_together_read_a_prompt_once() -> None:
    simulated = caching_engine({1: 9, 2: 9, 3: 9}, cache=1600)
    for number in (1, 2, 3):
        simulated.submit(ask(number, list(range(50))))
    simulated.step()
    assert simulated.stats().cached_tokens == 2 * (49 // BLOCK_TOKENS * BLOCK_TOKENS)
    run(simulated)
    assert simulated.stats().kv_used_tokens < 9 * 3 * 64


def test_a_prompt_that_is_read_in_chunks_is_found_as_far_as_it_was_read() -> None:
    simulated = caching_engine({1: 9, 2: 9}, cache=1600, budget=40)
    simulated.submit(ask(1, list(range(100))))
    simulated.step()
    simulated.submit(ask(2, list(range(100))))
    simulated.step()
    simulated.step()
    # The second one starts in the third step, which reads the last 20 tokens of the first one.
    assert simulated.stats().cached_tokens == 80


def test_what_was_used_longest_ago_is_evicted_first_unless_it_is_refreshed() -> None:
    def cached_of_first(*, refreshed: bool) -> int:
        simulated = caching_engine(dict.fromkeys(range(9), 1), cache=48 * BLOCK_TOKENS)
        prompts = [[n] * 10 * BLOCK_TOKENS for n in range(6)]
        for number in range(6):
            simulated.submit(ask(number, prompts[number]))
            run(simulated)
            if refreshed:
                simulated.refresh([*prompts[0], 7])
        before = simulated.stats().cached_tokens
        simulated.submit(ask(8, [*prompts[0], 7]))
        run(simulated)
        return simulated.stats().cached_tokens - before

    assert cached_of_first(refreshed=False) == 0
    assert cached_of_first(refreshed=True) == 10 * BLOCK_TOKENS


def test_long_prompts_are_read_in_chunks_of_what_the_budget_leaves() -> None:
    simulated = caching_engine({1: 10, 2: 1}, cache=1600, budget=20)
    simulated.submit(ask(1, [1] * 10))
    simulated.submit(ask(2, [2] * 58))
    # 10 tokens beside the first prompt, then 19 a step beside its answer: 48 in the fourth step.
    assert {n: step for n, (step, _) in run(simulated).items()} == {1: 10, 2: 4}


def test_the_last_to_start_is_preempted_when_running_requests_outgrow_the_cache() -> None:
    simulated = caching_engine({1: 100, 2: 100}, cache=10 * BLOCK_TOKENS)
    simulated.submit(ask(1, [1] * 16))
    simulated.submit(ask(2, [2] * 16))
    found = run(simulated)
    stats = simulated.stats()
    assert found[1][0] == 100
    assert found[2][0] > 100
    assert (stats.preemptions, stats.generated_tokens) == (1, 200)
    assert stats.recomputed_tokens > 0


def test_a_step_costs_its_overhead_the_slower_of_weights_and_tokens_and_its_context() -> None:
    cost = StepCost(overhead=1.0, weights=10.0, token=2.0, context_token=0.5)
    assert cost.seconds(tokens=3, context_tokens=4) == 13.0
    assert cost.seconds(tokens=8, context_tokens=4) == 19.0
    simulated = caching_engine({1: 2}, cache=1600, cost=cost)
    simulated.submit(ask(1, [1] * 6))
    run(simulated)
    # Six tokens are read; then one is written, behind seven.
    assert simulated.seconds == (1 + 12 + 3) + (1 + 10 + 3.5)


def test_an_engine_whose_cache_holds_no_context_does_not_start() -> None:
    figures = EngineFigures(max_num_seqs=1, kv_cache_tokens=100, max_model_len=101)
    with pytest.raises(EngineError, match="96 tokens of KV cache hold no context"):
        SimulatedEngine(lambda _: ([], "stop"), figures=figures)


COST = StepCost(overhead=0.0, weights=0.0, token=1.0, context_token=1.0)
LONG, FULL = 1000, 1001


def probe(simulated: SimulatedEngine, blocks: int) -> tuple[EngineStats, float]:
    """What an idle engine counts, and the time it takes, for an answer over many blocks and a full cache."""
    before, began = simulated.stats(), simulated.seconds
    simulated.submit(ask(LONG, [LONG]))
    run(simulated)
    simulated.submit(ask(FULL, [FULL] * (blocks * BLOCK_TOKENS - 1)))
    run(simulated)
    return simulated.stats().since(before), simulated.seconds - began


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=25),
    slots=st.integers(1, 6),
    blocks=st.integers(12, 30),
    budget=st.integers(6, 60),
    aborted=st.sets(st.integers(0, 24), max_size=3),
)
def test_whatever_runs_the_engine_is_as_new_in_the_end(
    lengths: list[tuple[int, int]], slots: int, blocks: int, budget: int, aborted: set[int]
) -> None:
    answers = {n: answer for n, (_, answer) in enumerate(lengths)} | {LONG: 40, FULL: 1}

    def new_engine() -> SimulatedEngine:
        return caching_engine(answers, cache=blocks * BLOCK_TOKENS, slots=slots, budget=budget, cost=COST)

    simulated = new_engine()
    for number, (prompt, _) in enumerate(lengths):
        simulated.submit(ask(number, [number % 3] * prompt))
    for _ in range(7):
        if simulated.outstanding:
            simulated.step()
    simulated.abort(aborted)
    completions = run(simulated)
    if not aborted:
        assert simulated.stats().generated_tokens == sum(answer for _, answer in lengths)
    for number, (_, completion) in completions.items():
        assert completion.num_tokens == lengths[number][1]
    assert probe(simulated, blocks) == probe(new_engine(), blocks)


def test_what_running_requests_hold_of_the_cache_is_summed_over_the_steps() -> None:
    simulated = caching_engine({1: 3, 2: 3}, cache=320)
    simulated.submit(ask(1, list(range(15))))
    simulated.submit(ask(2, list(range(100, 130))))
    run(simulated)
    # 15 tokens are a block and 30 are two; the second token written is the first's 17th, the other's 32nd.
    assert simulated.stats().kv_used_tokens == (3 + 3 + 4) * BLOCK_TOKENS
