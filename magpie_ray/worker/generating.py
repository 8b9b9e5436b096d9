"""The task of `generate` and `answer`: conversations over one engine."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import Engine
from magpie_ray.generation.recipe import Recipe, Start
from magpie_ray.generation.rounds import Rounds
from magpie_ray.preflight.build_spec import check_prompts_fit
from magpie_ray.types import Rejection, Row
from magpie_ray.utils.background import DaemonExecutor
from magpie_ray.worker.answers import Answers
from magpie_ray.worker.fed_rounds import FedRounds
from magpie_ray.worker.input_feed import InputFeed
from magpie_ray.worker.parts import make_feed, make_window
from magpie_ray.worker.spec import WorkerSpec
from magpie_ray.worker.task import BeginTask

log = logging.getLogger(__name__)


def prepare_generation(spec: WorkerSpec, recipe: Recipe, *, on_loaded: Callable[[], None]) -> BeginTask:
    """Begin to load what rows start with; the task begins once there is an engine.

    on_loaded: called from the background when more rows can start.
    """
    feed = make_feed(spec, on_loaded=on_loaded)
    return lambda engine: GenerationTask(spec, engine, recipe, feed)


class GenerationTask:
    """Rounds, and the answers to a row put together. See Task."""

    def __init__(
        self, spec: WorkerSpec, engine: Engine, recipe: Recipe, feed: InputFeed[Start] | None
    ) -> None:
        check_prompts_fit(spec.build_spec, max_model_len=engine.figures.max_model_len)
        window = make_window(spec, engine.figures)
        log.info("%s", window)
        self._engine, self._feed = engine, feed
        self._answers = Answers(recipe.answers or 1)
        self._decider = DaemonExecutor(name="verdicts")
        if feed:
            self._rounds: Rounds = FedRounds(engine, recipe, window, feed=feed, executor=self._decider)
        else:
            self._rounds = Rounds(engine, recipe, window, executor=self._decider)

    @property
    def more_to_come(self) -> bool:
        return self._rounds.more_to_come

    @more_to_come.setter
    def more_to_come(self, value: bool) -> None:
        self._rounds.more_to_come = value

    @property
    def busy(self) -> bool:
        return self._rounds.busy

    @property
    def unstarted(self) -> int:
        return self._rounds.unstarted // self._answers.each

    @property
    def awaited_inputs(self) -> int:
        return self._rounds.awaited_inputs

    @property
    def live_window(self) -> int:
        return max(1, self._rounds.window.live // self._answers.each)

    @property
    def decided(self) -> int:
        return self._rounds.decided

    @property
    def awaited_rule(self) -> str:
        return self._rounds.awaited_rule

    def stats(self) -> EngineStats:
        stats = self._engine.stats()
        return replace(stats, known_tokens=stats.known_tokens + self._rounds.known_tokens)

    def add(self, rows: range) -> None:
        self._rounds.add(self._answers.of(rows))

    def discard(self, rows: range) -> None:
        self._rounds.discard(self._answers.of(rows))
        self._answers.drop(rows)

    def step(self) -> Iterable[Row | Rejection]:
        return self._answers.together(self._rounds.step())

    def take_outcomes(self) -> Iterable[Row | Rejection]:
        return self._answers.together(self._rounds.take_outcomes())

    def close(self) -> None:
        # A rule of the user's may never return.
        self._decider.shutdown(wait=False, cancel_futures=True)
        if self._feed:
            self._feed.close()
