"""The end of an engine's process, told at once: real processes, and a stand-in for vLLM's client."""

import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from types import SimpleNamespace

import pytest

from magpie_ray.engine.vllm.engine import VllmEngine
from magpie_ray.engine.vllm.processes import ProcessWatch, watch_processes
from magpie_ray.engine.vllm.stats import StepCounter
from magpie_ray.errors import EngineError
from tests.engine.vllm.test_engine import LlmEngine


@pytest.fixture
def process() -> Iterator[SpawnProcess]:
    process = multiprocessing.get_context("spawn").Process(
        target=time.sleep, args=(600,), name="EngineCore_DP0"
    )
    process.start()
    yield process
    process.kill()
    process.join()


class WaitingLlmEngine(LlmEngine):
    """An engine whose core is a process: vLLM's step waits for outputs, whoever is dead."""

    def __init__(self, process: SpawnProcess) -> None:
        super().__init__()
        manager = SimpleNamespace(processes=[process])
        self.outputs = queue.Queue[Exception]()
        self.engine_core = SimpleNamespace(
            resources=SimpleNamespace(engine_manager=manager), outputs_queue=self.outputs
        )

    def step(self) -> None:
        raise self.outputs.get(timeout=60)


def test_a_step_that_waits_for_a_killed_core_ends_with_its_signal(process: SpawnProcess) -> None:
    llm_engine = WaitingLlmEngine(process)
    engine = VllmEngine(llm_engine, StepCounter(), processes=watch_processes(llm_engine))
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"its process EngineCore_DP0 was killed by signal 9 \(SIGKILL"):
        engine.step()


def test_what_a_dead_worker_leads_to_is_told_by_its_death(process: SpawnProcess) -> None:
    class CancelledLlmEngine(LlmEngine):
        executor = SimpleNamespace(workers=[SimpleNamespace(proc=process)])
        engine_core = SimpleNamespace(engine_core=SimpleNamespace(model_executor=executor))

        def step(self) -> None:
            process.terminate()
            raise RuntimeError("cancelled")

    llm_engine = CancelledLlmEngine()
    engine = VllmEngine(llm_engine, StepCounter(), processes=watch_processes(llm_engine))
    with pytest.raises(EngineError, match=r"vLLM died: .* was killed by signal 15 \(SIGTERM\)"):
        engine.step()


def test_an_engine_without_processes_is_not_watched() -> None:
    assert ProcessWatch(()).end(60) == ""
