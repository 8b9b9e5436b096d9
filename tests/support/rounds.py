"""Rounds over a simulated engine: a format whose prompts can be read back, a recipe, answers, outcomes."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

from magpie_ray.acceptance import empty, role_marker, truncated
from magpie_ray.acceptance.rule import RuleContext
from magpie_ray.config.acceptance import AcceptanceConfig, RoleMarkerRule
from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.engine.protocol import EngineFigures, Request, Sampling
from magpie_ray.engine.simulated.engine import Answer, SimulatedEngine
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.recipe import Recipe, SamplingPair
from magpie_ray.generation.rounds import Rounds
from magpie_ray.types import Rejection, Row

FIGURES = EngineFigures(max_num_seqs=8, kv_cache_tokens=10_000, max_model_len=10_000)
MAX_TOKENS = 50
USER = Sampling(settings=SamplingSettings(max_tokens=MAX_TOKENS))
ASSISTANT = Sampling(settings=SamplingSettings(temperature=0.0, max_tokens=60))
PREFIX, ASKS_ANSWER, WAS_ANSWERED, NEXT_USER, MARKER = 1, 2, 3, 4, 9
SPECIAL_TOKENS = RuleContext(special_token_ids=frozenset({MARKER}))


def window(cohort_size: int = 4, cohorts_in_flight: int = 3) -> AdmissionWindow:
    """A window of so many cohorts, whatever the cache holds."""
    return AdmissionWindow(FIGURES, cohort_size=cohort_size, cohorts_in_flight=cohorts_in_flight)


class MarkedFormat:
    """A chat format of one token a marker: prompts can be read back. Records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[int, ...], list[list[int]]]] = []

    def prefix(self, system_prompt: str | None) -> tuple[int, ...]:
        return (PREFIX, *(1000 + ord(c) for c in system_prompt or ""))

    def prompt(self, prefix: Sequence[int], messages: Sequence[Sequence[int]]) -> list[int]:
        self.calls.append((tuple(prefix), [list(message) for message in messages]))
        ids = list(prefix)
        for index, message in enumerate(messages):
            ids += message
            last = index + 1 == len(messages)
            ids.append(NEXT_USER if index % 2 else ASKS_ANSWER if last else WAS_ANSWERED)
        return ids


def recipe(**changes: object) -> Recipe:
    """Rows of two turns, with changes, also by the keys of the config's acceptance."""
    ordinary = Recipe(
        chat_format=MarkedFormat(),
        decode=lambda messages: [" ".join(map(str, ids)) for ids in messages],
        rules={
            "empty": empty.make_rule(True, SPECIAL_TOKENS),
            "truncated": truncated.make_rule(True, SPECIAL_TOKENS),
            "role_marker": role_marker.make_rule(RoleMarkerRule(), SPECIAL_TOKENS),
        },
        samplings=(SamplingPair(user=USER, assistant=ASSISTANT),),
        messages_per_row=4,
        prompts=(),
        seed=5,
        reproducible=False,
        acceptance=AcceptanceConfig(max_attempts=1000, min_accept_rate=0),
    )
    keys = ("max_attempts", "min_accept_rate", "retry_from", "context_full")
    acceptance = ordinary.acceptance.model_copy(update={k: changes.pop(k) for k in keys if k in changes})
    return replace(ordinary, acceptance=acceptance, **changes)


class WatchedEngine(SimulatedEngine):
    """Keeps every request submitted, in order."""

    def __init__(self, respond: Callable[[Request], Answer], figures: EngineFigures = FIGURES) -> None:
        super().__init__(respond, figures=figures)
        self.requests: list[Request] = []

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        super().submit(request)


def unique_words(seed: int = 0, *, longest: int = 12, reject_every: int = 0) -> Callable[[Request], Answer]:
    """Messages of random lengths, no two alike; one in `reject_every` holds a marker."""
    draw, used = random.Random(seed), iter(range(10_000, 10**9))

    def respond(request: Request) -> Answer:
        ids = [next(used) for _ in range(draw.randint(1, longest))]
        return [*ids, MARKER] if reject_every and draw.randrange(reject_every) == 0 else ids, "stop"

    return respond


def run_to_end(rounds: Rounds) -> list[Row | Rejection]:
    """All outcomes of the rows that were added. No more conversations are live than the window allows."""
    outcomes: list[Row | Rejection] = []
    while rounds.busy:
        outcomes += rounds.step()
        assert len(rounds.live) <= rounds.window.live
    return outcomes


def finished(outcomes: list[Row | Rejection]) -> dict[int, Row]:
    """The rows among the outcomes, by row id."""
    rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
    assert len({row.row_id for row in rows}) == len(rows), "a row came out twice"
    return {row.row_id: row for row in rows}


def generated(row: Row) -> list[list[int]]:
    """The token ids of the row's messages."""
    return [[int(word) for word in message.text.split()] for message in row.messages]


class LateExecutor(Executor):
    """Runs nothing until it is told to."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def catch_up(self) -> None:
        for future, work in self._waiting:
            future.set_result(work())
        self._waiting.clear()
