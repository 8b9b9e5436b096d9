"""Several answers to each row, in virtual time: the real rounds, and a bare loop that asks for all at once.

Instructions are lognormal, documents to be answered ten times as long. Half of the answers are short (normal
60+-30 tokens), half are long (lognormal, median 800, sigma 0.6, at most 4,096). An answer's length depends on
its row and number alone, so both systems do the same work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.benchmarks.cards import Card
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import Request, Sampling
from magpie_ray.engine.simulated.engine import Answer, SimulatedEngine
from magpie_ray.engine.simulated.kv_cache import BLOCK_TOKENS
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.recipe import Recipe, SamplingPair, Start
from magpie_ray.generation.rounds import Rounds
from magpie_ray.types import Message

# Median tokens of a row's prompt.
INSTRUCTIONS, DOCUMENTS = 60, 600
_MARKUP = tuple(range(10))  # the same in all prompts; less than a block of the cache
_LONGEST_PROMPT, _LONGEST_ANSWER = 3000, 4096
_SAMPLING = Sampling(settings=SamplingSettings(temperature=0.8, max_tokens=_LONGEST_ANSWER))
# Of an answer, as a worker expects it from max_tokens.
_EXPECTED_TOKENS = 1100


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """What is to be answered, `each` times. prompts, answers: their tokens; the answers of a row together."""

    prompts: tuple[int, ...]
    answers: tuple[int, ...]
    each: int

    @property
    def repeated_tokens(self) -> int:
        """Prompt tokens that an earlier answer to the same row has been asked with."""
        return (self.each - 1) * sum(self.prompts)

    @property
    def in_whole_blocks(self) -> float:
        """The share of them that a cache of whole blocks can have. The last token is always read."""
        blocks = sum((length - 1) // BLOCK_TOKENS for length in self.prompts)
        return blocks * BLOCK_TOKENS / sum(self.prompts)

    def prompt(self, row: int) -> list[int]:
        """It differs from all others behind the markup. Its last token says which row it is of."""
        return [*_MARKUP, *[1000 + row] * (self.prompts[row] - len(_MARKUP) - 1), row]


def draw_rows(rows: int, each: int, *, median: int) -> Rows:
    """Rows with prompts of that median length."""
    draw = np.random.default_rng(0)
    prompts = np.clip(draw.lognormal(np.log(median), 0.5, rows), len(_MARKUP) + 2, _LONGEST_PROMPT)
    number = rows * each
    short = np.clip(draw.normal(60, 30, number), 2, None)
    long = np.clip(draw.lognormal(np.log(800), 0.6, number), 2, _LONGEST_ANSWER)
    answers = np.where(draw.random(number) < 0.5, short, long)
    return Rows(
        prompts=tuple(prompts.round().astype(int).tolist()),
        answers=tuple(answers.round().astype(int).tolist()),
        each=each,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswersRun:
    """One system's figures. seconds: simulated. body_filled: the share of the batch that was taken until the
    last answer had begun."""

    stats: EngineStats
    seconds: float
    repeated_tokens: int
    body_filled: float

    @property
    def found(self) -> float:
        """The share of repeated prompt tokens that the cache held."""
        return self.stats.cached_tokens / self.repeated_tokens


class _Engine:
    """An engine that gives each answer its length; watches when the last one begins."""

    def __init__(self, card: Card, rows: Rows) -> None:
        self._rows, self._asked, self._begun = rows, [0] * len(rows.prompts), 0
        self._then: EngineStats | None = None
        self.engine = SimulatedEngine(
            self._respond,
            figures=card.figures,
            cost=card.cost,
            max_num_batched_tokens=card.max_num_batched_tokens,
        )

    def _respond(self, request: Request) -> Answer:
        row = request.prompt_token_ids[-1]
        number, self._asked[row] = self._asked[row], self._asked[row] + 1
        self._begun += 1
        if self._begun == len(self._rows.answers):
            self._then = self.engine.stats()
        return [0] * (self._rows.answers[row * self._rows.each + number] - 1), "stop"

    def run(self) -> AnswersRun:
        assert self._then is not None, "all answers have begun"
        return AnswersRun(
            stats=self.engine.stats(),
            seconds=self.engine.seconds,
            repeated_tokens=self._rows.repeated_tokens,
            body_filled=self._then.occupancy,
        )


def bare_loop(card: Card, rows: Rows) -> AnswersRun:
    """All answers are asked for at once, those of a row together."""
    engine = _Engine(card, rows)
    for number in range(len(rows.answers)):
        prompt = rows.prompt(number // rows.each)
        engine.engine.submit(Request(request_id=number, prompt_token_ids=prompt, sampling=_SAMPLING))
    while engine.engine.outstanding:
        engine.engine.step()
    return engine.run()


class _Source:
    """What rows start with: a message of the source, which is the whole prompt but for its last token."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self.number = rows, len(rows.answers)

    def start_of(self, row_id: int) -> Start:
        row = row_id // self._rows.each
        said = Message(role="user", text="", finish_reason="stop", prompt_tokens=0, completion_tokens=0)
        ids = self._rows.prompt(row)[:-1]
        return Start(None, (row,), given=(said,), given_ids=(ids,))


class _Format:
    """A chat format whose prompt is the message, and the number in the prefix behind it."""

    def prefix(self, system_prompt: str | None) -> tuple[int, ...]:
        return ()

    def prompt(self, prefix: Sequence[int], messages: Sequence[Sequence[int]]) -> list[int]:
        return [*messages[0], *prefix]


def our_rounds(card: Card, rows: Rows) -> AnswersRun:
    """A worker's rounds over the same rows."""
    engine = _Engine(card, rows)
    recipe = Recipe(
        chat_format=_Format(),
        decode=lambda messages: [""] * len(messages),
        rules={},
        samplings=(SamplingPair(user=_SAMPLING, assistant=_SAMPLING),),
        messages_per_row=1,
        prompts=(),
        seed=0,
        reproducible=False,
        acceptance=AcceptanceConfig(max_attempts=1, min_accept_rate=0),
        inputs=_Source(rows),
        answers=rows.each,
    )
    rounds = Rounds(engine.engine, recipe, AdmissionWindow(card.figures, tokens_per_turn=_EXPECTED_TOKENS))
    rounds.add(range(len(rows.answers)))
    while rounds.busy:
        rounds.step()
    return engine.run()
