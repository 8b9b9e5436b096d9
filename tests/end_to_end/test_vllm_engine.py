"""The engine's promises that only real vLLM can keep: what is aborted is gone, what is cut says why."""

from collections.abc import Iterator
from importlib.resources import files

import pytest

from magpie_ray.engine.vllm import VllmEngine, VllmSettings
from magpie_ray.errors import ConfigError
from magpie_ray.types import Completion, Request, Sampling

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore")]

PRE_QUERY = [1, 2, 1996, 3, 1908]
CONTEXT, SLOTS = 64, 4


def made(**extra: object) -> VllmEngine:
    return VllmEngine(
        VllmSettings(
            model=str(files("magpie_ray").joinpath("tiny_chat")),
            revision=None,
            device="cpu",
            seed=1,
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            max_model_len=CONTEXT,
            max_num_seqs=SLOTS,
            gpu_memory_utilization=0.9,
            dtype="auto",
            quantization=None,
            trust_remote_code=False,
            distributed_executor_backend=None,
            extra=extra,
        )
    )


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    engine = made()
    yield engine
    engine.close()


def submit(engine: VllmEngine, numbers: range, *, prompt: int = len(PRE_QUERY), max_tokens: int = 20) -> None:
    ids = (PRE_QUERY * CONTEXT)[:prompt]
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=max_tokens)
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


def test_a_value_that_vllm_refuses_is_an_error_of_the_config_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"engine\.extra: hf_token: Input should be") as caught:
        made(hf_token={"x": "hunter2" * 20})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
