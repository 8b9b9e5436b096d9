"""The watcher that collects the history of a run's actors. Its record is in dataset/actor_history."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from magpie_ray.coordinator.actors import Left, Loss, Lost
from magpie_ray.coordinator.watcher import Ended, JobEvent, Requested, Watcher
from magpie_ray.dataset.actor_history import MAX_LIVES, ActorHistoryRecord, ActorLife, End
from magpie_ray.worker.events import Committed, Placed, Ready

_CAUSE_CHARACTERS = 200


class ActorHistory(Watcher):
    """The lives of all actors of run number `run`. device, num_gpus: what one actor takes.

    clock: seconds, monotonic. most: lives that the record lists.
    """

    def __init__(
        self,
        *,
        run: int = 0,
        device: str = "cpu",
        num_gpus: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        most: int = MAX_LIVES,
    ) -> None:
        self._run, self._device, self._num_gpus = run, device, num_gpus
        self._clock, self._began, self._most = clock, clock(), most
        self._lives: list[ActorLife] = []
        self._current: dict[int, int] = {}  # slot -> index of its actor's life

    def hear(self, slot: int, event: JobEvent) -> None:
        """Note the event in the life of the slot's actor. Events of an actor that is gone change nothing."""
        match event:
            case Requested():
                self._current[slot] = len(self._lives)
                self._lives.append(ActorLife(slot=slot, asked=self._now()))
            case Placed():
                self._change(slot, placed=self._now(), node=event.host)
            case Ready():
                self._change(slot, ready=self._now())
            case Committed() if slot in self._current:
                rows = self._lives[self._current[slot]].rows + sum(record.rows for record in event.files)
                self._change(slot, rows=rows)
            case Lost() | Left():
                self._end(slot, "left" if event.loss is Loss.LEFT else "lost", event.cause)
            case Ended():
                self._end(slot, "ended")

    def record(self) -> ActorHistoryRecord:
        """The history so far."""
        now = self._now()
        left_out = self._lives[self._most :]
        return ActorHistoryRecord(
            run=self._run,
            device=self._device,
            num_gpus=self._num_gpus,
            seconds=now,
            lives=tuple(self._lives[: self._most]),
            left_out=len(left_out),
            left_out_seconds=round(math.fsum(life.held_seconds(now) for life in left_out), 1),
        )

    def _now(self) -> float:
        return round(self._clock() - self._began, 1)

    def _end(self, slot: int, end: End, cause: str = "") -> None:
        self._change(slot, ended=self._now(), end=end, cause=cause[:_CAUSE_CHARACTERS])
        self._current.pop(slot, None)

    def _change(self, slot: int, **changes: Any) -> None:
        if (index := self._current.get(slot)) is not None:
            self._lives[index] = replace(self._lives[index], **changes)
