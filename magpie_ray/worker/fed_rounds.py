"""Rounds whose rows start once their inputs are loaded."""

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import replace

from magpie_ray.engine.protocol import Engine
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.recipe import Recipe, Start
from magpie_ray.generation.rounds import Rounds
from magpie_ray.types import Rejection, Row
from magpie_ray.worker.input_feed import InputFeed


class FedRounds(Rounds):
    """Rows that are added wait in the feed. Each step takes loaded ones, up to a live window of them."""

    def __init__(
        self,
        engine: Engine,
        recipe: Recipe,
        window: AdmissionWindow,
        *,
        feed: InputFeed[Start],
        executor: Executor | None = None,
    ) -> None:
        super().__init__(engine, replace(recipe, inputs=feed), window, executor=executor)
        self._feed = feed

    @property
    def unstarted(self) -> int:
        """Rows added whose first attempt has not started."""
        return super().unstarted + self._feed.waiting

    @property
    def busy(self) -> bool:
        """Whether a step has something to do: rows that can start, or that have started."""
        return super().busy or self._feed.has_some

    @property
    def awaited_inputs(self) -> int:
        """Rows added whose inputs are not loaded yet."""
        return self._feed.waiting

    def add(self, row_ids: Iterable[int]) -> None:
        """Queue rows. They start in order."""
        self._feed.open(row_ids, ahead=self.window.live)

    def discard(self, rows: range) -> None:
        """Drop rows that were added: none of them comes out of `step` from now on."""
        super().discard(rows)
        self._feed.drop(rows)

    def step(self) -> list[Row | Rejection]:
        """As Rounds.step. Also raises what loading inputs has failed with."""
        if (room := self.window.live - super().unstarted) > 0:
            super().add(self._feed.take(room))
        outcomes = super().step()
        self._feed.release(outcome.row_id for outcome in outcomes if isinstance(outcome, Row))
        return outcomes
