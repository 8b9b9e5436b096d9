"""The end of a build: its last rows take hardly more engine steps than rows without any cohorts."""

import random
from itertools import count

import pytest

from magpie_ray import draws
from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.engine.protocol import EngineFigures, Request, Sampling
from magpie_ray.engine.simulated.engine import Answer, SimulatedEngine
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.recipe import SamplingPair
from magpie_ray.generation.rounds import Rounds
from tests.support.rounds import finished, recipe

SLOTS = 32
FIGURES = EngineFigures(max_num_seqs=SLOTS, kv_cache_tokens=400_000, max_model_len=1000)
ROWS = 8 * SLOTS
LONGER = SamplingSettings(max_tokens=200)
PAIR = SamplingPair(user=Sampling(settings=LONGER), assistant=Sampling(settings=LONGER))


def respond(request: Request) -> Answer:
    """A message whose length its seed decides, so that each system generates the same lengths."""
    draw = random.Random(request.seed)
    tokens = draw.lognormvariate(1.3, 0.6) if request.sampling is PAIR.user else draw.normalvariate(50, 26)
    return [7] * max(1, min(128, round(tokens))), "stop"


def steps_of_rounds(seed: int, turns: int) -> int:
    engine = SimulatedEngine(respond, figures=FIGURES)
    window = AdmissionWindow(FIGURES, turns=turns, tokens_per_turn=90)
    rounds = Rounds(
        engine, recipe(seed=seed, reproducible=True, messages_per_row=2 * turns, samplings=(PAIR,)), window
    )
    rounds.add(range(ROWS))
    outcomes = []
    while rounds.busy:
        outcomes += rounds.step()
    assert len(finished(outcomes)) == ROWS
    return engine.stats().steps


def steps_without_cohorts(seed: int, turns: int) -> int:
    """All rows are under way at once, and each goes on as soon as its message is there."""
    engine, numbers = SimulatedEngine(respond, figures=FIGURES), count()
    place_of = dict[int, tuple[int, int]]()

    def ask(row: int, message: int) -> None:
        number, sampling = next(numbers), PAIR.assistant if message % 2 else PAIR.user
        place_of[number] = row, message
        of_row = draws.request_seed(row, seed=seed, attempt=1, message=message)
        engine.submit(Request(request_id=number, prompt_token_ids=[1], sampling=sampling, seed=of_row))

    for row in range(ROWS):
        ask(row, 0)
    while engine.outstanding:
        for completion in engine.step():
            row, message = place_of.pop(completion.request_id)
            if message + 1 < 2 * turns:
                ask(row, message + 1)
    return engine.stats().steps


@pytest.mark.parametrize("turns", [2, 3])
def test_a_small_build_takes_hardly_more_steps_than_rows_without_cohorts(turns: int) -> None:
    ratios = [steps_of_rounds(seed, turns) / steps_without_cohorts(seed, turns) for seed in range(6)]
    print([f"{ratio:.4f}" for ratio in sorted(ratios)])
    assert sum(ratios) / len(ratios) <= 1.005
    assert max(ratios) <= 1.02
