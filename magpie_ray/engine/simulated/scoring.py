"""A scoring engine without a model: the caller's function says the numbers of a request."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence

from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.engine.scoring import Score, ScoreRequest
from magpie_ray.errors import EngineError


class SimulatedScoringEngine:
    """Answers each request with `respond(request)`, in a step of at most max_num_seqs requests, in order.

    vector_size: of the vectors that `respond` gives; None where requests ask about tokens. As in vLLM, such a
    prompt needs room for one more token in the context.
    """

    def __init__(
        self,
        respond: Callable[[ScoreRequest], Sequence[float]],
        *,
        figures: EngineFigures,
        vector_size: int | None = None,
    ) -> None:
        self._respond, self._figures, self._vector_size = respond, figures, vector_size
        self._waiting = deque[ScoreRequest]()
        self._counts = Counter[str]()

    @property
    def figures(self) -> EngineFigures:
        return self._figures

    @property
    def longest_prompt(self) -> int:
        return self._figures.max_model_len - (self._vector_size is None)

    @property
    def vector_size(self) -> int | None:
        return self._vector_size

    @property
    def outstanding(self) -> int:
        return len(self._waiting)

    def submit(self, request: ScoreRequest) -> None:
        """Queue a request. EngineError when its prompt does not fit, as in vLLM."""
        if not 0 < len(request.prompt_token_ids) <= self.longest_prompt:
            raise EngineError(
                f"a prompt of {len(request.prompt_token_ids)} tokens does not fit engine.max_model_len "
                f"{self._figures.max_model_len}"
            )
        self._waiting.append(request)

    def step(self) -> list[Score]:
        assert self._waiting, "step() without anything outstanding"
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._figures.max_num_seqs))]
        self._counts["steps"] += 1
        self._counts["running"] += len(batch)
        self._counts["generated_tokens"] += len(batch)
        self._counts["prompt_tokens"] += sum(len(request.prompt_token_ids) for request in batch)
        return [
            Score(request_id=request.request_id, numbers=list(self._respond(request))) for request in batch
        ]

    def abort(self, request_ids: Collection[int]) -> None:
        dropped = set(request_ids)
        self._waiting = deque(request for request in self._waiting if request.request_id not in dropped)

    def stats(self) -> EngineStats:
        steps = self._counts["steps"]
        return EngineStats(
            **self._counts,
            slots=steps * self._figures.max_num_seqs,
            kv_tokens=steps * self._figures.kv_cache_tokens,
        )

    def close(self) -> None:
        """Nothing to stop."""
