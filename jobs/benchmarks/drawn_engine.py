"""A real vLLM engine whose messages have drawn lengths, and what is measured at its border.

Invariants: a message's length follows from its seed alone (draws.request_seed: from row, attempt and
message); no message holds a special token. So every system generates the same lengths for the same rows and
no row is rejected. vLLM's `min_tokens` masks the stop tokens until the drawn length is reached; `ignore_eos`
would let them into the text.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from magpie_ray.engine.protocol import Completion, Request, Sampling
from magpie_ray.engine.vllm.engine import VllmEngine
from magpie_ray.types import Role
from magpie_ray.worker.parts import plain_vllm_engine
from magpie_ray.worker.spec import WorkerSpec

# "magpie-lengths" (user messages lognormal with median 30 tokens and sigma 0.6, clipped to 4..256; assistant
# messages normal 400+-210, clipped to 16..1024; their sum as in Table 4 of the paper) at an eighth of their
# size, as the bundled model on a CPU generates a few thousand tokens a second.
SCALE = 8
MAX_TOKENS: dict[Role, int] = {"user": 256 // SCALE, "assistant": 1024 // SCALE}


@cache
def drawn_length(seed: int, role: Role) -> int:
    """Tokens of the message with that seed."""
    draw = random.Random(seed)
    if role == "user":
        tokens, least = draw.lognormvariate(0.0, 0.6) * 30, 4
    else:
        tokens, least = draw.normalvariate(400, 210), 16
    return min(max(round(tokens / SCALE), least // SCALE, 1), MAX_TOKENS[role])


@dataclass(kw_only=True, slots=True)
class Measured:
    """What a system did to the engine, from its first request to the end of its last step.

    Seconds of the wall clock; `cpu` is that of the stepping thread. Slots are counted once a step: `running`
    are taken, `idle` free before the last step that fills all, `tail` free after it. later_*: tokens of
    prompts that continue a conversation, `known` those that an earlier prompt or message of it had computed.
    """

    steps: int = 0
    first_request: float = 0.0
    last_step: float = 0.0
    step_seconds: float = 0.0
    add_seconds: float = 0.0
    cpu_seconds: float = 0.0
    step_cpu_seconds: float = 0.0
    running: int = 0
    idle: int = 0
    tail: int = 0
    tokens: int = 0
    preemptions: int = 0
    recomputed_tokens: int = 0
    later_tokens: int = 0
    later_known_tokens: int = 0
    later_cached_tokens: int = 0

    @property
    def seconds(self) -> float:
        return self.last_step - self.first_request

    @property
    def outside(self) -> float:
        """The part of `seconds` that is not in `step`; what vLLM does to take a request in is outside."""
        return 1 - self.step_seconds / self.seconds

    @property
    def cpu_outside(self) -> float:
        """The same of the thread's own CPU seconds, which other processes on the machine do not lengthen."""
        return 1 - self.step_cpu_seconds / self.cpu_seconds


class TimedLlmEngine:
    """A vLLM LLMEngine that measures its two calls. Everything else is the engine's own."""

    def __init__(self, llm_engine: Any, running: Callable[[], int], slots: int) -> None:
        self._llm_engine, self._running, self._slots = llm_engine, running, slots
        self._first_prompt = self._new_tokens = 0
        self._cpu_started = 0.0
        self.measured = Measured()

    def begin(self, *, first_prompt: int, new_tokens: int) -> None:
        """Measure anew.

        first_prompt: the length of a prompt that begins a conversation. new_tokens: what stands in a later
        one behind its messages, and their last token, whose keys and values nobody has computed.
        """
        self._first_prompt, self._new_tokens = first_prompt, new_tokens
        self._running_before = self._running()
        self.measured = Measured()

    def add_request(self, *arguments: Any) -> Any:
        started = time.perf_counter()
        if not self.measured.first_request:
            self.measured.first_request, self._cpu_started = started, time.thread_time()
        answer = self._llm_engine.add_request(*arguments)
        self.measured.add_seconds += time.perf_counter() - started
        return answer

    def step(self) -> Any:
        measured = self.measured
        started, cpu_started = time.perf_counter(), time.thread_time()
        outputs = self._llm_engine.step()
        measured.last_step, cpu_ended = time.perf_counter(), time.thread_time()
        measured.steps += 1
        measured.step_seconds += measured.last_step - started
        measured.step_cpu_seconds += cpu_ended - cpu_started
        measured.cpu_seconds = cpu_ended - self._cpu_started
        running = self._running() - self._running_before - measured.running
        measured.running += running
        measured.tail += self._slots - running
        if running >= self._slots:
            measured.idle, measured.tail = measured.idle + measured.tail, 0
        for output in outputs:
            if not output.request_id.isdigit():
                continue  # no message's: it only keeps a prefix cached
            if (length := len(output.prompt_token_ids)) > self._first_prompt:
                measured.later_tokens += length
                measured.later_known_tokens += length - self._new_tokens
                measured.later_cached_tokens += output.num_cached_tokens
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm_engine, name)


class DrawnEngine(VllmEngine):
    """A VllmEngine that takes requests of a reproducible build, whose seeds decide their lengths.

    vLLM does not get the seeds: seeded sampling is another, slower path on CPUs. report_to: the file that
    `close` writes the measurement to; without one the engine outlives its worker.
    """

    def __init__(self, started: VllmEngine, spec: WorkerSpec, *, report_to: str | None = None) -> None:
        counts, slots = started.counter.counts, started.figures.max_num_seqs
        self.timed = TimedLlmEngine(started.llm_engine, lambda: counts["running"], slots)
        super().__init__(self.timed, started.counter)
        self._report_to = report_to
        self._drawn: dict[tuple[Sampling, int], Sampling] = {}
        self.begin(spec)

    def begin(self, spec: WorkerSpec) -> None:
        """Forget what was measured and what is cached; the next requests are of this build."""
        assert self.timed.reset_prefix_cache(), "the prefix cache is in use"
        form = spec.build_spec.form
        self._special = tuple(form.special_token_ids)
        self._user_temperature = spec.build_spec.writing.sampling.mix("user")[0][0].temperature
        self.timed.begin(
            first_prompt=len(
                form.prefix(spec.build_spec.prompts[0].text if spec.build_spec.prompts else None)
            ),
            new_tokens=1 + max(len(form.user_to_assistant_ids), len(form.next_user_ids)),
        )
        self._before = self.stats()

    def submit(self, request: Request) -> None:
        assert request.seed is not None, "drawn lengths need sampling.reproducible"
        temperature = request.sampling.settings.temperature
        role: Role = "user" if temperature == self._user_temperature else "assistant"
        drawn = self._with_length(request.sampling, drawn_length(request.seed, role))
        super().submit(replace(request, sampling=drawn, seed=None))

    def params(self, sampling: Sampling, length: int) -> Any:
        """vLLM's SamplingParams for a message of exactly `length` tokens."""
        return self.sampling_params(self._with_length(sampling, length))

    def _with_length(self, sampling: Sampling, length: int) -> Sampling:
        if (drawn := self._drawn.get((sampling, length))) is None:
            settings = sampling.settings.model_copy(update={"max_tokens": length})
            drawn = replace(sampling, settings=settings, stop_token_ids=self._special)
            self.sampling_params(drawn).min_tokens = length
            self._drawn[sampling, length] = drawn
        return drawn

    def step(self) -> list[Completion]:
        # The drawn end of a message is its own, not a cut.
        return [replace(completion, finish_reason="stop") for completion in super().step()]

    def end(self) -> Measured:
        """What was measured since `begin`."""
        measured, added = self.timed.measured, self.stats().since(self._before)
        measured.tokens = added.generated_tokens
        measured.preemptions = added.preemptions
        measured.recomputed_tokens = added.recomputed_tokens
        return measured

    def close(self) -> None:
        if self._report_to:
            Path(self._report_to).write_text(json.dumps(asdict(self.end())))
            super().close()


@dataclass(frozen=True)
class DrawnEngineFactory:
    """Makes a worker's DrawnEngine, in whatever process the worker runs."""

    report_to: str | None = None

    def __call__(self, spec: WorkerSpec) -> DrawnEngine:
        return DrawnEngine(plain_vllm_engine(spec), spec, report_to=self.report_to)
