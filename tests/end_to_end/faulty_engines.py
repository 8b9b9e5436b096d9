"""Engines that fail, as factories that travel to Ray actors. A marker file says that a fault has happened."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import ray

from magpie_ray.engine.protocol import Completion, Request
from magpie_ray.engine.simulated.engine import SimulatedEngine
from magpie_ray.errors import EngineError
from magpie_ray.model.tokenizer import load_tokenizer
from magpie_ray.worker.spec import WorkerSpec
from tests.support.engines import ScriptedEngine


def stepping(engine: SimulatedEngine, before: Callable[[], None]) -> SimulatedEngine:
    """The engine, with something that happens before each of its steps."""
    step = engine.step

    def step_after() -> list[Completion]:
        before()
        return step()

    engine.step = step_after  # type: ignore[method-assign]
    return engine


@dataclass(frozen=True)
class Paced:
    """A step takes some time, as on a GPU; that of the first engine start may take `slow` times as much.

    Once there is a file of the name in HURRY_FILE, or of that given, steps take no time any more.
    """

    seconds: float = 0.005
    slow: float = 1.0
    hurry_file: str = field(default_factory=lambda: os.environ["HURRY_FILE"])
    inner: ScriptedEngine = field(default_factory=ScriptedEngine)

    def __call__(self, spec: WorkerSpec) -> SimulatedEngine:
        seconds = self.seconds * (1.0 if spec.engine_start else self.slow)

        def pause() -> None:
            if not os.path.exists(self.hurry_file):
                time.sleep(seconds)

        return stepping(self.inner(spec), pause)


@dataclass(frozen=True)
class NoRoom:
    """An engine that fails to load, and tells why on standard error alone, as those in child processes do."""

    def __call__(self, spec: WorkerSpec) -> SimulatedEngine:
        print("torch.OutOfMemoryError: tried to allocate 40.00 GiB", file=sys.stderr, flush=True)
        raise EngineError("vLLM could not start: engine core initialization failed, see root cause above")


@dataclass(frozen=True)
class FailsOn:
    """An engine that fails on every prompt with this text in it: rows that no actor can generate."""

    text: str

    def __call__(self, spec: WorkerSpec) -> SimulatedEngine:
        model = spec.build_spec.model
        tokenizer = load_tokenizer(model.location, revision=model.revision).tokenizer
        engine = ScriptedEngine()(spec)
        submit = engine.submit

        def submit_or_fail(request: Request) -> None:
            if self.text in tokenizer.decode(request.prompt_token_ids):
                raise EngineError("illegal memory access")
            submit(request)

        engine.submit = submit_or_fail  # type: ignore[method-assign]
        return engine


@dataclass(frozen=True)
class OnNode:
    """Engines of which those on the node with that id fail: as they start, or after so many steps."""

    node_id: str
    after_steps: int = 0
    inner: Callable[[WorkerSpec], SimulatedEngine] = field(default_factory=ScriptedEngine)

    def __call__(self, spec: WorkerSpec) -> SimulatedEngine:
        if ray.get_runtime_context().get_node_id() != self.node_id:
            return self.inner(spec)
        if not self.after_steps:
            raise EngineError("CUDA error: uncorrectable ECC error encountered")
        engine = ScriptedEngine()(spec)

        def fail_late() -> None:
            if engine.stats().steps >= self.after_steps:
                raise EngineError("CUDA error: uncorrectable ECC error encountered")

        return stepping(engine, fail_late)
