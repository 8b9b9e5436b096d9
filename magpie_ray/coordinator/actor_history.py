"""The watcher that collects the history of a run's actors. Its record is in dataset/actor_history."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from magpie_ray.coordinator.actors import Left, Loss, Lost
from magpie_ray.coordinator.nodes import NodePaused
from magpie_ray.coordinator.watcher import Ended, JobEvent, Requested, Snapshot, Watcher
from magpie_ray.dataset.actor_history import (
    MAX_LIVES,
    MAX_NODES,
    MAX_POINTS,
    ActorHistoryRecord,
    ActorLife,
    End,
    FailedNode,
)
from magpie_ray.worker.events import Committed, Placed, Ready

_CAUSE_CHARACTERS = 200
_FIRST_SECONDS = 1.0


@dataclass(slots=True)
class _Current:
    """The life of a slot's present actor. index: in the list of the first lives; None for one beyond."""

    life: ActorLife
    index: int | None


class ActorHistory(Watcher):
    """The lives of all actors of run number `run`. device, num_gpus: what one actor takes.

    clock: seconds, monotonic. most: lives that the record lists; of those beyond only the present ones are
    kept, and the sum of the others.
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
        self._lives: list[ActorLife] = []  # the first ones, as of their end
        self._failed_nodes: dict[str, FailedNode] = {}
        self._current: dict[int, _Current] = {}  # by slot
        self._left_out, self._left_out_seconds = 0, 0.0  # lives beyond the first that have ended
        self._generated: list[tuple[float, int]] = [(0.0, 0)]
        self._last = self._generated[0]
        self._between = _FIRST_SECONDS  # two points of the series

    def hear(self, slot: int, event: JobEvent) -> None:
        """Note the event in the life of the slot's actor. Events of an actor that is gone change nothing."""
        match event:
            case Requested() if slot not in self._current:  # else the same actor, on other nodes
                self._begin(slot)
            case Placed():
                self._change(slot, placed=self._now(), node=event.host)
            case Ready():
                self._change(slot, ready=self._now())
            case Committed() if slot in self._current:
                rows = self._current[slot].life.rows + sum(record.rows for record in event.files)
                self._change(slot, rows=rows)
            case Lost() | Left():
                self._end(slot, "left" if event.loss is Loss.LEFT else "lost", event.cause)
            case NodePaused():
                self._note_node(event)
            case Ended():
                self._end(slot, "ended")

    def show(self, snapshot: Snapshot) -> None:
        """Note the tokens so far. A series that grows long keeps every second point."""
        self._last = (self._now(), snapshot.engines.generated_tokens)
        if self._last[0] < self._generated[-1][0] + self._between:
            return
        self._generated.append(self._last)
        if len(self._generated) >= MAX_POINTS:
            self._generated = self._generated[::2]
            self._between *= 2

    def record(self) -> ActorHistoryRecord:
        """The history so far."""
        now = self._now()
        lives, beyond = list(self._lives), list[ActorLife]()
        for current in self._current.values():
            if current.index is None:
                beyond.append(current.life)
            else:
                lives[current.index] = current.life
        seconds = [self._left_out_seconds, *(life.held_seconds(now) for life in beyond)]
        return ActorHistoryRecord(
            run=self._run,
            device=self._device,
            num_gpus=self._num_gpus,
            seconds=now,
            lives=tuple(lives),
            left_out=self._left_out + len(beyond),
            left_out_seconds=round(math.fsum(seconds), 1),
            failed_nodes=tuple(self._failed_nodes.values()),
            generated=(*self._generated, *([self._last] if self._last != self._generated[-1] else [])),
        )

    def _note_node(self, event: NodePaused) -> None:
        before = self._failed_nodes.get(event.node_id)
        if before or len(self._failed_nodes) < MAX_NODES:
            self._failed_nodes[event.node_id] = FailedNode(
                node_id=event.node_id,
                host=event.host,
                failures=event.failures,
                pauses=1 + (before.pauses if before else 0),
                cause=event.cause[:_CAUSE_CHARACTERS],
            )

    def _now(self) -> float:
        return round(self._clock() - self._began, 1)

    def _begin(self, slot: int) -> None:
        life, index = ActorLife(slot=slot, asked=self._now()), None
        if len(self._lives) < self._most:
            index = len(self._lives)
            self._lives.append(life)
        self._current[slot] = _Current(life, index)

    def _end(self, slot: int, end: End, cause: str = "") -> None:
        self._change(slot, ended=self._now(), end=end, cause=cause[:_CAUSE_CHARACTERS])
        if (current := self._current.pop(slot, None)) is None:
            return
        if current.index is None:
            self._left_out += 1
            self._left_out_seconds += current.life.held_seconds(self._now())
        else:
            self._lives[current.index] = current.life

    def _change(self, slot: int, **changes: Any) -> None:
        if current := self._current.get(slot):
            current.life = replace(current.life, **changes)
