"""The nodes of one cluster: they leave, with and without notice, and come back; some are broken.

capacity, starting and unused: meters of the seats of healthy nodes that are up and stay, of those of them
whose engine is starting, and of those that no actor has.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.week.agenda import Agenda, Meter
from tests.chaos.week.costs import Costs
from tests.chaos.week.scale import BROKEN, Scale

NO_NOTICE, ON_NOTICE = "node leaves without notice", "node leaves on notice"


@dataclass(slots=True, eq=False)
class Node:
    """A node, which has another name each time that it comes back.

    free: since when each free seat has been so.
    """

    number: int
    fault: str | None
    times: int = 0
    up: bool = True
    leaving: bool = False
    free: list[float] = field(default_factory=list)
    actors: set[Any] = field(default_factory=set)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"node-{self.number:04d}-{self.times}"

    def die(self) -> None:
        """It comes back as another one."""
        self.up = False
        self.times += 1
        self.name = f"node-{self.number:04d}-{self.times}"
        self.free.clear()


class Cluster:
    """on_free: called when seats may have come free; on_death: when a node is gone."""

    def __init__(
        self, scale: Scale, agenda: Agenda, draw: random.Random, costs: Costs, *, nodes: int
    ) -> None:
        self._scale, self._agenda, self._draw, self._costs = scale, agenda, draw, costs
        self.capacity, self.starting, self.unused = Meter(agenda), Meter(agenda), Meter(agenda)
        self.on_free: Callable[[], None] = lambda: None
        self.on_death: Callable[[Node, str], None] = lambda node, fault: None
        self.longest_wait = 0.0
        self.num_seats = 0
        broken = draw.sample(range(nodes), round(scale.broken * nodes))
        faults = {number: BROKEN[i % len(BROKEN)] for i, number in enumerate(broken)}
        self.nodes = [Node(number, faults.get(number)) for number in range(nodes)]
        self._free = dict[Node, None]()  # in order
        self.leaving = dict[Node, None]()
        self._names: frozenset[str] | None = None
        for node in self.nodes:
            if node.fault:
                costs.note(node.fault)
            self._come(node)

    def _come(self, node: Node) -> None:
        seats = self._scale.actors_per_node
        node.up, node.leaving, self._names = True, False, None
        node.free = [self._agenda.now] * seats
        self._free[node] = None
        self.num_seats += seats
        if not node.fault:
            self.capacity.change(seats)
            self.unused.change(seats)
        stays = self._draw.expovariate(1 / self._scale.stay_seconds)
        self._agenda.after(stays, lambda: self._leave(node))
        self.on_free()

    def _leave(self, node: Node) -> None:
        if self._draw.random() >= self._scale.notice:
            self._die(node, NO_NOTICE)
            return
        node.leaving = True
        self._withdraw(node)
        self.leaving[node] = None
        self.num_seats -= self._scale.actors_per_node
        if not node.fault:
            self.capacity.change(-self._scale.actors_per_node)
        self._agenda.after(self._scale.notice_seconds, lambda: self._die(node, ON_NOTICE))

    def _die(self, node: Node, fault: str) -> None:
        self._costs.note(fault)
        self._withdraw(node)
        if self.leaving.pop(node, 0) == 0:
            self.num_seats -= self._scale.actors_per_node
            if not node.fault:
                self.capacity.change(-self._scale.actors_per_node)
        node.die()
        self.on_death(node, fault)
        self._agenda.after(self._draw.uniform(*self._scale.away_seconds), lambda: self._come(node))

    @property
    def names(self) -> frozenset[str]:
        """Of the nodes that are up and stay."""
        if self._names is None:
            self._names = frozenset(node.name for node in self.nodes if node.up and not node.leaving)
        return self._names

    @property
    def usable_seconds(self) -> float:
        """Of healthy seats that are up and stay, without the starts of engines."""
        return self.capacity.seconds - self.starting.seconds

    def _withdraw(self, node: Node) -> None:
        """Its free seats are not to be had any more."""
        self._names = None
        if node in self._free:
            del self._free[node]
            if not node.fault:
                self.unused.change(-len(node.free))

    def take(self, avoid: frozenset[str]) -> Node | None:
        """A seat on any other node."""
        nodes = [node for node in self._free if node.name not in avoid] if avoid else list(self._free)
        if not nodes:
            return None
        node = self._draw.choice(nodes)
        since = node.free.pop(0)
        if not node.fault:
            self.unused.change(-1)
            self.longest_wait = max(self.longest_wait, self._agenda.now - since)
        if not node.free:
            del self._free[node]
        return node

    def give_back(self, node: Node, times: int) -> None:
        """The seat is free again, unless the node has gone since."""
        if node.up and node.times == times:
            node.free.append(self._agenda.now)
            if not node.leaving:
                self._free[node] = None
                if not node.fault:
                    self.unused.change(1)
                self.on_free()

    def idle_since(self) -> list[float]:
        """Since when the free seats of healthy nodes are so."""
        return [since for node in self._free if not node.fault for since in node.free]
