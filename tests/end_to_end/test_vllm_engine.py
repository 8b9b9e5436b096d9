"""The engine's promises that only real vLLM can keep: what is aborted is gone, what is cut says why."""

from collections.abc import Iterator
from importlib.resources import files

import pytest

from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.config.sections import EngineConfig
from magpie_ray.engine.protocol import Completion, Request, Sampling
from magpie_ray.engine.vllm.args import VllmSettings
from magpie_ray.engine.vllm.engine import VllmEngine, start_vllm
from magpie_ray.errors import ConfigError

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore")]

PRE_QUERY = [1, 2, 1996, 3, 1908]
CONTEXT, SLOTS = 64, 4
BLOCK, CACHE_BLOCKS = 32, 40


def made(*, seeded: bool = False, **extra: object) -> VllmEngine:
    return start_vllm(
        VllmSettings(
            engine=EngineConfig(max_model_len=CONTEXT, max_num_seqs=SLOTS, extra=extra),
            model=str(files("magpie_ray").joinpath("tiny_chat")),
            revision=None,
            device="cpu",
            seed=1,
            seeded=seeded,
        )
    )


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    engine = made(num_gpu_blocks_override=CACHE_BLOCKS)
    yield engine
    engine.close()


def submit(engine: VllmEngine, numbers: range, *, prompt: int = len(PRE_QUERY), max_tokens: int = 20) -> None:
    ids = (PRE_QUERY * CONTEXT)[:prompt]
    sampling = Sampling(settings=SamplingSettings(max_tokens=max_tokens))
    for number in numbers:
        engine.submit(Request(request_id=number, prompt_token_ids=ids, sampling=sampling))


def drained(engine: VllmEngine) -> dict[int, Completion]:
    found = {}
    while engine.outstanding:
        found |= {completion.request_id: completion for completion in engine.step()}
    return found


def test_aborted_requests_never_come_out_and_leave_their_slots(engine: VllmEngine) -> None:
    submit(engine, range(3 * SLOTS))
    early = {completion.request_id for _ in range(3) for completion in engine.step()}
    engine.abort([number for number in range(3 * SLOTS) if number % 2 and number not in early])
    assert {n for n in early | set(drained(engine)) if n not in early} == set(range(0, 3 * SLOTS, 2)) - early


def test_an_engine_whose_requests_were_all_aborted_goes_on_with_new_ones(engine: VllmEngine) -> None:
    submit(engine, range(100, 108))
    engine.step()
    engine.abort(range(100, 108))
    assert engine.outstanding == 0
    submit(engine, range(108, 112))
    assert set(drained(engine)) == set(range(108, 112))


def test_a_message_that_fills_the_context_is_cut_before_its_max_tokens(engine: VllmEngine) -> None:
    submit(engine, range(200, 230), prompt=CONTEXT - 2)
    cut = [found for found in drained(engine).values() if found.finish_reason == "length"]
    assert {found.num_tokens for found in cut} == {2}


def test_a_prefix_that_is_refreshed_is_not_evicted_and_nothing_comes_out_of_it(engine: VllmEngine) -> None:
    sampling = Sampling(settings=SamplingSettings(temperature=0.0, max_tokens=1))

    def cached_of(number: int, first: int) -> int:
        """Tokens found in the cache of a prompt of one block and a token."""
        before = engine.stats().cached_tokens
        ids = [first, *[7] * BLOCK]
        engine.submit(Request(request_id=number, prompt_token_ids=ids, sampling=sampling))
        assert set(drained(engine)) == {number}
        return engine.stats().cached_tokens - before

    kept, left = 5, 6
    before = engine.stats()
    cached_of(400, kept)
    cached_of(401, left)
    for number in range(402, 402 + 2 * CACHE_BLOCKS):
        if number % (CACHE_BLOCKS // 4) == 0:
            engine.refresh([kept] + [7] * (BLOCK + 9))
        cached_of(number, number)
    assert (cached_of(900, kept), cached_of(901, left)) == (BLOCK, 0)
    after = engine.stats()
    asked = 4 + 2 * CACHE_BLOCKS
    assert after.prompt_tokens - before.prompt_tokens == asked * (BLOCK + 1)
    assert after.cached_tokens - before.cached_tokens == BLOCK
    assert after.generated_tokens - before.generated_tokens == asked


def test_its_figures_account_for_every_token_and_every_slot(engine: VllmEngine) -> None:
    before = engine.stats()
    submit(engine, range(300, 310))
    generated = sum(found.num_tokens for found in drained(engine).values())
    after = engine.stats()
    assert after.generated_tokens - before.generated_tokens == generated
    assert after.prompt_tokens - before.prompt_tokens == 10 * len(PRE_QUERY)
    # Whoever is in the batch gets a token: nothing was preempted, and no prompt was read in pieces.
    assert after.running - before.running == generated
    assert generated <= SLOTS * (after.steps - before.steps)
    assert (after.preemptions, after.recomputed_tokens) == (0, 0)


def test_requests_with_seeds_need_no_generator_that_turns_back() -> None:
    """As vLLM asks for after a part of a prompt, and torch's generators on a CPU can't do."""
    engine = made(seeded=True, max_num_batched_tokens=CONTEXT)
    sampling = Sampling(settings=SamplingSettings(max_tokens=8))
    for number in range(2 * SLOTS):  # two thirds of a batch each
        ids = [number, *(PRE_QUERY * CONTEXT)[: CONTEXT * 2 // 3]]
        engine.submit(Request(request_id=number, prompt_token_ids=ids, sampling=sampling, seed=number))
    assert set(drained(engine)) == set(range(2 * SLOTS))
    engine.close()


def test_a_value_that_vllm_refuses_is_an_error_of_the_config_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"engine\.extra: hf_token: Input should be") as caught:
        made(hf_token={"x": "hunter2" * 20})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
