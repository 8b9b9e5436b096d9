"""The real rounds over the simulated engine, and plain lockstep, with rows of drawn lengths.

Lengths are "magpie-lengths": user messages lognormal with median 30 tokens and sigma 0.6, clipped to 4..256;
assistant messages normal 400+-210, clipped to 16..1024. A message's length depends only on its row and turn,
so every system does the same work.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.benchmarks.cards import Card
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import Request, Sampling
from magpie_ray.engine.simulated.engine import Answer, SimulatedEngine
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.recipe import Recipe, SamplingPair
from magpie_ray.generation.rounds import Rounds

# Tokens of a chat template with the paper's system prompt, and of the markup between two messages.
_PREFIX_TOKENS, _BETWEEN_TOKENS = 70, 5
_SAMPLING = Sampling(settings=SamplingSettings(max_tokens=4096))


def draw_lengths(rows: int, turns: int) -> list[list[int]]:
    """Tokens of each message of each row, the ending included."""
    draw = np.random.default_rng(0)
    lengths = np.empty((rows, 2 * turns), dtype=int)
    lengths[:, 0::2] = np.clip(np.round(draw.lognormal(np.log(30), 0.6, (rows, turns))), 4, 256)
    lengths[:, 1::2] = np.clip(np.round(draw.normal(400, 210, (rows, turns))), 16, 1024)
    found: list[list[int]] = lengths.tolist()
    return found


class NumberedFormat:
    """A chat format whose prompts say which row and message they are for.

    The last token of a conversation's prefix is the number of its row; the others are the same in all rows.
    Rounds ask for the prefixes in the order of the rows, because no row is rejected.
    """

    def __init__(self) -> None:
        self._next_row = 0

    def prefix(self, system_prompt: str | None) -> tuple[int, ...]:
        """The prefix of the next row."""
        row, self._next_row = self._next_row, self._next_row + 1
        return (*range(_PREFIX_TOKENS - 1), row)

    def prompt(self, prefix: Sequence[int], messages: Sequence[Sequence[int]]) -> list[int]:
        """The markup between two messages ends with the number of messages before it."""
        ids = list(prefix)
        for number, message in enumerate(messages, 1):
            ids += message
            ids += [0] * (_BETWEEN_TOKENS - 1)
            ids.append(number)
        return ids


def place_of(prompt: Sequence[int]) -> tuple[int, int]:
    """The row that a prompt belongs to, and the number of its messages."""
    return prompt[_PREFIX_TOKENS - 1], prompt[-1] if len(prompt) > _PREFIX_TOKENS else 0


class DrawnAnswers:
    """Answers of the drawn lengths, and a count of the prompts' new and known tokens."""

    def __init__(self, lengths: list[list[int]]) -> None:
        self._lengths = lengths
        self.new_tokens = 0
        self.known_tokens = 0

    def __call__(self, request: Request) -> Answer:
        row, messages = place_of(request.prompt_token_ids)
        # No prompt repeats the end of a message, its last token. The token before that is prefilled again.
        new = _BETWEEN_TOKENS if messages else 1
        self.new_tokens += new
        self.known_tokens += len(request.prompt_token_ids) - new
        return [row + 1] * (self._lengths[row][messages] - 1), "stop"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One system's figures. The body ends when the last row has begun; the tail follows.

    body, tail: simulated seconds. body_tokens: generated in the body. known: prompt tokens that had been
    prefilled or generated before; missed: those of them that the cache had evicted.
    """

    rows: int
    stats: EngineStats
    body: float
    tail: float
    body_tokens: int
    occupancy: float
    known: int
    missed: int

    @property
    def seconds_per_token(self) -> float:
        """Simulated seconds of the body for one token."""
        return self.body / self.body_tokens

    @property
    def hit_rate(self) -> float:
        """The share of known prompt tokens that the cache still held."""
        return 1 - self.missed / max(1, self.known)

    @property
    def read_again(self) -> float:
        """Known tokens prefilled again, after preemptions too, for each generated token."""
        return (self.missed + self.stats.recomputed_tokens) / self.stats.generated_tokens


def run_rounds(card: Card, *, turns: int, rows: int, window: AdmissionWindow, refresh: bool = True) -> Run:
    """A worker's rounds in that window."""
    answers, engine = _engine(card, draw_lengths(rows, turns))
    if not refresh:
        engine.refresh = lambda token_ids: None  # type: ignore[method-assign]
    recipe = Recipe(
        chat_format=NumberedFormat(),
        decode=lambda messages: [""] * len(messages),
        rules={},
        samplings=(SamplingPair(user=_SAMPLING, assistant=_SAMPLING),),
        messages_per_row=2 * turns,
        prompts=(),
        seed=0,
        reproducible=False,
        acceptance=AcceptanceConfig(max_attempts=1, min_accept_rate=0),
    )
    rounds = Rounds(engine, recipe, window)
    rounds.add(range(rows))
    body = _Body(engine)
    while rounds.busy:
        rounds.step()
        if not rounds.unstarted:
            body.end()
    return body.run(card, rows, answers)


def run_lockstep(card: Card, *, turns: int, rows: int) -> Run:
    """A generator over batches: all messages of a batch end before the next messages begin."""
    answers, engine = _engine(card, draw_lengths(rows, turns))
    form, body = NumberedFormat(), _Body(engine)
    for start in range(0, rows, card.max_num_seqs):
        batch = [(form.prefix(None), list[list[int]]()) for _ in range(min(card.max_num_seqs, rows - start))]
        for _ in range(2 * turns):
            for number, (prefix, messages) in enumerate(batch):
                prompt = form.prompt(prefix, messages)
                engine.submit(Request(request_id=number, prompt_token_ids=prompt, sampling=_SAMPLING))
            while engine.outstanding:
                for completion in engine.step():
                    batch[completion.request_id][1].append(completion.token_ids)
    body.end()
    return body.run(card, rows, answers)


def _engine(card: Card, lengths: list[list[int]]) -> tuple[DrawnAnswers, SimulatedEngine]:
    answers = DrawnAnswers(lengths)
    respond: Callable[[Request], Answer] = answers
    return answers, SimulatedEngine(
        respond, figures=card.figures, cost=card.cost, max_num_batched_tokens=card.max_num_batched_tokens
    )


class _Body:
    """The state of an engine when the last row began."""

    def __init__(self, engine: SimulatedEngine) -> None:
        self._engine = engine
        self._ended: tuple[float, EngineStats] | None = None

    def end(self) -> None:
        if self._ended is None:
            self._ended = self._engine.seconds, self._engine.stats()

    def run(self, card: Card, rows: int, answers: DrawnAnswers) -> Run:
        assert self._ended is not None
        seconds, then = self._ended
        stats = self._engine.stats()
        return Run(
            rows=rows,
            stats=stats,
            body=seconds,
            tail=self._engine.seconds - seconds,
            body_tokens=then.generated_tokens,
            occupancy=then.running / (then.steps * card.max_num_seqs),
            known=answers.known_tokens,
            missed=stats.prompt_tokens - stats.cached_tokens - answers.new_tokens,
        )
