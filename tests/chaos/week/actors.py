"""The actors of one driver in virtual time: what its job asks for, and hears."""

import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from magpie_ray.coordinator.actors import Left, Loss, Lost
from magpie_ray.types import Partition
from magpie_ray.worker.events import Event
from tests.chaos.week.cluster import Node
from tests.chaos.week.life import NODE_SECONDS, Life
from tests.chaos.week.scale import HANGS
from tests.chaos.week.world import World

DRIVER_KILLED = "driver: SIGKILL, resumed on another cluster"
# One action in so many.
_MEASURED = 50
T = TypeVar("T")
_Said = tuple[Life, Event | Lost | Left]


class DriverKilledError(BaseException):
    """SIGKILL: nothing of the driver runs any more."""


class VirtualActors:
    """See magpie_ray.coordinator.actors.

    killed_at: when the driver is killed, and on_kill called. is_pending: whether the job has partitions that
    nobody works on. events: that the job got. cpu_seconds: spent in this world.
    """

    def __init__(
        self,
        world: World,
        *,
        killed_at: float,
        on_kill: Callable[[], None],
        is_pending: Callable[[], bool],
    ) -> None:
        self._world = world
        self._killed_at, self._on_kill, self._is_pending = killed_at, on_kill, is_pending
        self._killed = False
        self._lives: dict[int, Life] = {}
        self._wanting: deque[Life] = deque()
        self._said: deque[_Said] = deque()
        self.events, self.cpu_seconds, self._actions = 0, 0.0, 0
        world.cluster.on_free, world.cluster.on_death = self._place, self._lose_node

    def _metered(self, action: Callable[[], T]) -> T:
        """Do it, and measure one in many: asking for the CPU time takes longer than most actions."""
        self._actions += 1
        if self._actions % _MEASURED:
            return action()
        before = time.thread_time()
        try:
            return action()
        finally:
            self.cpu_seconds += _MEASURED * (time.thread_time() - before)

    def start(self, slot: int, *, engine_start: int, avoid: frozenset[str] = frozenset()) -> None:
        life = self._lives[slot] = Life(self._world, slot, avoid, lambda *said: self._said.append(said))
        self._wanting.append(life)
        self._place()

    def give(self, slot: int, partition: Partition) -> None:
        self._metered(lambda: self._lives[slot].give(partition))

    def drop(self, slot: int, partition: Partition) -> None:
        self._lives[slot].drop(partition)

    def last(self, slot: int) -> None:
        """Virtual workers have no cohorts."""

    def finish(self, slot: int) -> None:
        self._said.append((self._lives[slot], Left()))

    def stop(self, slot: int) -> None:
        self._lives[slot].stop()

    def end(self, slot: int) -> None:
        life = self._lives.pop(slot, None)
        if life is not None:
            hangs = life.node is not None and life.node.fault == HANGS
            life.end(DRIVER_KILLED if self._killed else HANGS if hangs else None)

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        """The events of the time for which a driver lets events gather, at most one a slot."""
        return self._metered(self._poll)

    def _poll(self) -> list[tuple[int, Event | Lost | Left]]:
        world = self._world
        gather = world.scale.gather_seconds / (8 if self._said else 1)
        world.agenda.pass_until(min(world.now + gather, self._killed_at))
        if world.now >= self._killed_at:
            self._killed = True
            self._on_kill()
            raise DriverKilledError
        if world.gain.tail is None and not self._is_pending():
            world.gain.tail = world.now
        events = dict[int, Event | Lost | Left]()
        later = deque[_Said]()
        for life, event in self._said:
            if self._lives.get(life.slot) is not life:
                continue
            if life.slot in events:
                later.append((life, event))
            else:
                events[life.slot] = event
        self._said = later
        self.events += len(events)
        return list(events.items())

    def capacity(self) -> int:
        return self._world.cluster.num_seats

    def nodes(self) -> frozenset[str]:
        return self._world.cluster.names

    def on_notice(self) -> list[int]:
        return [life.slot for node in self._world.cluster.leaving for life in _by_slot(node)]

    def explain(self, slot: int, cause: str) -> str:
        return cause

    def describe(self) -> str:
        return f"{len(self._wanting)} actors wait in virtual time"

    def _place(self) -> None:
        """Give free seats to actors that wait."""
        wanting, self._wanting = self._wanting, deque()
        for life in wanting:
            if life.over:
                continue
            if node := self._world.cluster.take(life.avoid):
                life.place(node)
            else:
                self._wanting.append(life)

    def _lose_node(self, node: Node, fault: str) -> None:
        lost = Lost(cause=f"{node.name} died", loss=Loss.NODE)
        for life in _by_slot(node):
            life.die(fault, lost, NODE_SECONDS)


def _by_slot(node: Node) -> list[Life]:
    return sorted(node.actors, key=lambda life: life.slot)
