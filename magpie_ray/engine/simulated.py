"""An engine in virtual time: no model, one token a step for every running request.

Requests beyond `max_num_seqs` wait in order, as in vLLM. What a request is answered with is the caller's
function; the answer's length decides in which step it ends. Used by tests and wherever scheduling is studied
without a model.
"""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from magpie_ray.engine import EngineStats
from magpie_ray.errors import EngineError
from magpie_ray.types import Completion, EngineFigures, FinishReason, Request

Answer = tuple[list[int], FinishReason]


@dataclass(slots=True)
class _Running:
    request: Request
    token_ids: list[int]
    finish_reason: FinishReason
    num_tokens: int
    steps_left: int


class SimulatedEngine:
    """Answers each request with `respond(request)` after one step per token, plus one for the ending.

    An answer that with its ending exceeds max_tokens or the context is cut there, as in vLLM.
    """

    def __init__(self, respond: Callable[[Request], Answer], *, figures: EngineFigures) -> None:
        self._respond = respond
        self._figures = figures
        self._waiting: deque[Request] = deque()
        self._running: list[_Running] = []
        self._stats = EngineStats()

    @property
    def figures(self) -> EngineFigures:
        return self._figures

    @property
    def outstanding(self) -> int:
        return len(self._waiting) + len(self._running)

    def submit(self, request: Request) -> None:
        """Queue a request. EngineError when its prompt fills the context, as vLLM refuses it."""
        if len(request.prompt_token_ids) >= self._figures.max_model_len:
            raise EngineError(
                f"a prompt of {len(request.prompt_token_ids)} tokens does not fit engine.max_model_len "
                f"{self._figures.max_model_len}"
            )
        self._waiting.append(request)

    def step(self) -> list[Completion]:
        """One token for every running request; those that ended, in the order they were started."""
        assert self.outstanding, "step() without anything outstanding"
        while self._waiting and len(self._running) < self._figures.max_num_seqs:
            request = self._waiting.popleft()
            ids, reason = self._respond(request)
            room = self._figures.max_model_len - len(request.prompt_token_ids)
            allowed = min(request.sampling.max_tokens, room)
            tokens = len(ids) + (reason == "stop")
            if tokens > allowed:
                ids, reason, tokens = ids[:allowed], "length", allowed
            self._running.append(_Running(request, ids, reason, tokens, steps_left=tokens))
        generated = len(self._running)
        for running in self._running:
            running.steps_left -= 1
        ended = [r for r in self._running if r.steps_left <= 0]
        self._running = [r for r in self._running if r.steps_left > 0]
        self._stats = EngineStats(
            steps=self._stats.steps + 1,
            prompt_tokens=self._stats.prompt_tokens + sum(len(r.request.prompt_token_ids) for r in ended),
            generated_tokens=self._stats.generated_tokens + generated,
        )
        return [
            Completion(
                request_id=r.request.request_id,
                token_ids=r.token_ids,
                finish_reason=r.finish_reason,
                num_tokens=r.num_tokens,
            )
            for r in ended
        ]

    def abort(self, request_ids: Collection[int]) -> None:
        """Give up outstanding requests; their slots are free at once."""
        self._waiting = deque(r for r in self._waiting if r.request_id not in request_ids)
        self._running = [r for r in self._running if r.request.request_id not in request_ids]

    def stats(self) -> EngineStats:
        return self._stats

    def close(self) -> None:
        self._waiting.clear()
        self._running.clear()
