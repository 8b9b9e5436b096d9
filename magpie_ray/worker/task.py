"""What a worker does with its rows over one engine: a task. Each kind of job has one.

The worker opens, stores and reports; the task says which of the rows come out of a step of the engine.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from magpie_ray.counters import EngineStats
from magpie_ray.types import Outcome


class Task(Protocol):
    """The rows that a worker was given, over its engine. One thread calls all methods.

    more_to_come: whether rows may be added; else the last ones start in their own way.
    """

    more_to_come: bool

    @property
    def busy(self) -> bool:
        """Whether a step has something to do."""

    @property
    def unstarted(self) -> int:
        """Rows added that have not started."""

    @property
    def awaited_inputs(self) -> int:
        """Rows added that can't start yet, because what they start with is being loaded."""

    @property
    def live_window(self) -> int:
        """Rows that may be under way at once."""

    @property
    def decided(self) -> int:
        """Messages that have their verdict."""

    @property
    def awaited_rule(self) -> str:
        """The acceptance rule for which the engine has to wait; "" for none."""

    def stats(self) -> EngineStats:
        """The work of the engine."""

    def add(self, rows: range) -> None:
        """Queue rows. They start in order."""

    def discard(self, rows: range) -> None:
        """Drop rows that were added: none of them comes out from now on."""

    def step(self) -> Iterable[Outcome]:
        """Advance the engine by a step; the outcomes since. Raises what ends the worker."""

    def take_outcomes(self) -> Iterable[Outcome]:
        """After an error, the outcomes that the failed step would have returned."""

    def close(self) -> None:
        """End what runs in the background. The engine stays."""


# Makes the task over the engine, which is of the kind that the job needs.
BeginTask = Callable[[Any], Task]
