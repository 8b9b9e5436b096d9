"""A long build on one engine: what generation holds does not grow with the rows that went through it."""

import random
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from magpie_ray.chat_format.format import Reasoning
from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import Completion, EngineFigures, Request
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.rounds import Rounds
from magpie_ray.types import SystemPrompt
from tests.support.held import growth, held_by
from tests.support.rounds import MARKER, recipe

SLOTS = 32
WITHIN, OVERCOMMITTED = 100_000, 120
# Rows in the queue at once, and rows between two looks at what is held.
QUEUED = 100
LOOKS = 20


@dataclass
class QuickEngine:
    """An engine double that ends every request after one to six steps. One message in `bad` has a marker."""

    kv_cache_tokens: int
    bad: int = 0
    max_model_len: int = 200
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    running: dict[int, int] = field(default_factory=dict)  # request id -> steps left

    @property
    def figures(self) -> EngineFigures:
        return EngineFigures(
            max_num_seqs=SLOTS,
            kv_cache_tokens=self.kv_cache_tokens,
            max_model_len=self.max_model_len,
        )

    @property
    def outstanding(self) -> int:
        return len(self.running)

    def submit(self, request: Request) -> None:
        self.running[request.request_id] = self.draw.randint(1, 6)

    def step(self) -> list[Completion]:
        ended = []
        for request_id, left in list(self.running.items())[:SLOTS]:
            self.running[request_id] = left - 1
            if left == 1:
                del self.running[request_id]
                bad = self.bad and self.draw.randrange(self.bad) == 0
                ids = [self.draw.randrange(100, 999) for _ in range(4)] + [MARKER] * bool(bad)
                ended.append(
                    Completion(request_id=request_id, token_ids=ids, finish_reason="stop", num_tokens=5)
                )
        return ended

    def refresh(self, token_ids: list[int]) -> None:
        pass

    def abort(self, request_ids: Collection[int]) -> None:
        for request_id in request_ids:
            self.running.pop(request_id, None)

    def stats(self) -> EngineStats:
        return EngineStats()

    def close(self) -> None:
        pass


def thoughtful(messages: list[list[int]]) -> list[str]:
    return [f"<hm>{ids[0]}</hm>{' '.join(map(str, ids[1:]))}" for ids in messages]


PROMPTS = tuple(SystemPrompt(key=str(n), text=f"p{n}", weight=0.25) for n in range(4))
THINKING = {
    "reasoning": Reasoning(opened=False, opening="<hm>", closing="</hm>"),
    "decode": thoughtful,
    "encode": lambda text, index, system_prompt, generated: [int(word) for word in text.split()],
}
MODES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Changes of the recipe, and arguments of `generate`.
    "one turn within the cache": ({"messages_per_row": 2}, {}),
    "instructions alone": ({"messages_per_row": 1}, {"bad": 5}),
    "three turns within the cache": ({"messages_per_row": 6}, {}),
    "one turn overcommitted": ({"messages_per_row": 2}, {"cache": OVERCOMMITTED}),
    "three turns overcommitted": ({"messages_per_row": 6}, {"cache": OVERCOMMITTED}),
    "fixed cohorts": ({}, {"cohorts_in_flight": 3}),
    "fixed cohorts, little cache": ({}, {"cohorts_in_flight": 3, "cache": OVERCOMMITTED}),
    "rejects": ({}, {"bad": 4}),
    "rejects overcommitted": ({}, {"bad": 4, "cache": OVERCOMMITTED}),
    "from the last turn": ({"retry_from": "last_turn", "messages_per_row": 6}, {"bad": 8}),
    "from the last turn, fixed": ({"retry_from": "last_turn"}, {"bad": 4, "cohorts_in_flight": 2}),
    "reproducible": ({"reproducible": True}, {"bad": 6}),
    "thinking": (THINKING, {"bad": 6}),
    "prompts": ({"prompts": PROMPTS}, {"bad": 6, "cache": OVERCOMMITTED}),
    "discards": ({"messages_per_row": 6}, {"discards": True}),
    "discards overcommitted": ({}, {"discards": True, "cache": OVERCOMMITTED, "bad": 6}),
    "discards from the last turn": ({"retry_from": "last_turn"}, {"discards": True, "bad": 4}),
    "contexts that fill": ({"messages_per_row": 10, "context_full": "stop"}, {"max_model_len": 40}),
}


def generate(
    num_rows: int,
    changes: Mapping[str, Any],
    *,
    cache: int = WITHIN,
    cohorts_in_flight: int | None = None,
    bad: int = 0,
    max_model_len: int = 200,
    discards: bool = False,
) -> list[Counter[str]]:
    """Put so many rows through one Rounds, and look at what it holds LOOKS times after a first stretch."""
    engine = QuickEngine(cache, bad, max_model_len)
    made = recipe(**{"rules": {"role_marker": recipe().rules["role_marker"]}, **changes})
    window = AdmissionWindow(
        engine.figures,
        cohort_size=4,
        cohorts_in_flight=cohorts_in_flight,
        turns=made.messages_per_row / 2,
        tokens_per_turn=12,
    )
    rounds = Rounds(engine, made, window)
    made.chat_format.calls = deque(maxlen=1)  # type: ignore[attr-defined]
    ids, came, samples, every = count(), 0, [], num_rows // (LOOKS + 4)
    while came < num_rows:
        before = came // every
        while rounds.unstarted < QUEUED:
            rows = range(first := next(ids) * 8, first + 8)
            rounds.add(rows)
            if discards and engine.draw.randrange(4) == 0:
                # Given up at once, or while some of its rows are live.
                late = [row_id for row_id in rounds.live if row_id % 8 == 3][:1]
                rounds.discard(rows)
                for row_id in late:
                    rounds.discard(range(row_id - 3, row_id + 5))
                came += 8
        came += sum(hasattr(outcome, "sampling_key") for outcome in rounds.step())
        if came // every > max(before, 3):
            samples.append(held_by(rounds, but=[made, PROMPTS]))
    if cache == OVERCOMMITTED and not cohorts_in_flight:
        assert str(window).endswith("more than the cache holds")
    return samples


@pytest.mark.parametrize("mode", MODES)
def test_nothing_that_generation_holds_grows_with_its_rows(mode: str) -> None:
    changes, how = MODES[mode]
    samples = generate(1_200, changes, **how)
    assert len(samples) >= LOOKS - 1
    assert growth(samples) == {}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_nothing_that_generation_holds_grows_over_200_000_rows_of_all_modes(mode: str) -> None:
    changes, how = MODES[mode]
    assert growth(generate(200_000 // len(MODES), changes, **how)) == {}


def test_a_leak_is_found() -> None:
    leak: list[list[int]] = []
    samples = []
    for number in range(1, 2001):
        leak.append([number])
        if number % 100 == 0:
            samples.append(held_by(leak))
    assert set(growth(samples)) == {"bytes", "int", "list"}
