"""When the actor of each slot is started and on which nodes not, and when a run gives up on its engines.

Times are seconds of one monotonic clock, given by the caller. Invariants: a slot is never given up while the
run lasts, but its starts become rarer; nothing that happens on one node ends a run; a run ends when no engine
anywhere was up for start_timeout_seconds, and within a few starts when all of them fail from its beginning.
"""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field

from magpie_ray.coordinator.actors import Loss
from magpie_ray.coordinator.nodes import PAUSES_SECONDS, NodePaused, Nodes
from magpie_ray.coordinator.start_causes import StartCauses, may_pass

# Where every slot's first start has failed, and those of one slot so many times in a row, it is not bad luck.
_MAX_FAILED_STARTS = 3
# Where many start at once, or again at once, their pauses differ by up to a quarter.
_JITTER = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Pauses:
    """Waits before actors are started.

    restart_seconds: after one, two, ... actors of a slot in a row that committed nothing; the last one again
    and again. node_seconds: likewise, for a node that has failed. ramp_seconds: over which the starts of many
    new slots are spread; the first `at_once` of them start at once. idle_seconds: the longest wait while no
    actor of the run has a place or asks for one.
    """

    restart_seconds: tuple[float, ...] = (10.0, 30.0, 120.0, 300.0, 600.0)
    node_seconds: tuple[float, ...] = PAUSES_SECONDS
    ramp_seconds: float = 120.0
    at_once: int = 16
    idle_seconds: float = 30.0


@dataclass(slots=True)
class _Life:
    """A slot's current actor. asked, placed: when. nodes: hosts by node id, none until it is placed."""

    asked: float
    avoided: frozenset[str]
    nodes: Mapping[str, str] = field(default_factory=dict)
    placed: float = 0.0
    ready: bool = False
    useful: bool = False


class Staffing:
    """The starts of a run. nodes: what is known of each node that has failed."""

    def __init__(
        self, *, start_timeout_seconds: float, now: float, draw: random.Random, pauses: Pauses | None = None
    ) -> None:
        self._timeout, self._draw, self._pauses = start_timeout_seconds, draw, pauses or Pauses()
        self.nodes = Nodes(pauses_seconds=self._pauses.node_seconds)
        self._due: list[tuple[float, int]] = []  # a heap of starts to come
        self._lives: dict[int, _Life] = {}
        self._fruitless: dict[int, int] = {}  # by slot, actors in a row that committed nothing
        self._causes = StartCauses()
        self._num_slots = 0
        self._failed_starts = Counter[int]()  # by slot, those whose cause will not pass by itself
        self._last_up, self._ever_up = now, False
        self._spread = 1  # nodes that one engine has needed
        self._ends = deque[float]()  # when actors that had done work ended, of late

    def add(self, slots: Iterable[int], now: float) -> float:
        """Plan the first starts of these slots. Returns the seconds over which they are spread."""
        slots = list(slots)
        self._num_slots += len(slots)
        later, span = len(slots) - self._pauses.at_once, self._ramp_of(len(slots))
        for number, slot in enumerate(slots):
            place = number - self._pauses.at_once
            wait = span * (place + self._draw.random()) / later if place >= 0 else 0.0
            heapq.heappush(self._due, (now + wait, slot))
        return span

    def next_due(self, now: float) -> int | None:
        """A slot whose actor is to be started now. It stays due until `start` is called."""
        if self._expired(now) or not self._due or self._due[0][0] > now:
            return None
        return self._due[0][1]

    def start(self, slot: int, present: Set[str], now: float) -> frozenset[str]:
        """The slot's actor is started. Returns the nodes that it is to avoid, of those that are `present`."""
        if self._due and self._due[0][1] == slot:
            heapq.heappop(self._due)
        avoided = self.nodes.choose_avoided(slot, present, now, least=self._spread)
        self._lives[slot] = _Life(asked=now, avoided=avoided)
        return avoided

    def is_to_ask_again(self, slot: int, now: float) -> bool:
        """Whether the slot's actor, which has no place or has just got one, is to be requested once more.

        A node may be open by now that it is to avoid, or be left alone that it is not to avoid yet; or no
        process of it has started for so long that the node that holds its place may never start one. Ray does
        not tell such a wait from one for a node.
        """
        life = self._lives.get(slot)
        if life is None or life.ready:
            return False
        paused = self.nodes.paused_since(slot, life.asked)
        if life.nodes:  # it came there during the pause; one that was there before may do well
            return bool(paused.intersection(life.nodes) - self.nodes.paused_since(slot, life.placed))
        return (
            now - life.asked > self._timeout
            or self.nodes.opened(slot, life.avoided, now)
            or not paused <= life.avoided
        )

    def withdraw(self, slot: int) -> None:
        """The slot's actor, whose engine is not up, is to be started once more."""
        self._lives.pop(slot, None)
        self.nodes.released(slot)

    def placed(self, slot: int, nodes: Mapping[str, str], now: float) -> None:
        """The slot's actor has these nodes, given with their hosts."""
        life = self._lives[slot]
        life.nodes, life.placed = nodes, now
        self._spread = max(self._spread, len(nodes))
        self.nodes.released(slot, node_ids=nodes)

    def ready(self, slot: int, now: float) -> None:
        """The slot's engine is up. Where all starts failed for what has passed, none waits any longer."""
        self._lives[slot].ready = self._ever_up = True
        for node_id in self._lives[slot].nodes:
            self.nodes.ready(node_id, slot=slot)
        if self._causes.is_shared:
            self._fruitless.clear()
            soon = [
                min(when, now + self._draw.uniform(0.0, self._ramp_of(len(self._due))))
                for when, _ in self._due
            ]
            self._due = [(when, other) for when, (_, other) in zip(soon, self._due, strict=True)]
            heapq.heapify(self._due)
        self._causes.clear()

    def committed(self, slot: int, now: float) -> None:
        """The slot's actor has written a file."""
        if life := self._lives.get(slot):
            life.useful = True
            for node_id in life.nodes:
                self.nodes.committed(node_id, slot=slot, placed=life.placed, now=now)

    def ended(self, slot: int, *, cause: str, loss: Loss, now: float) -> tuple[float, list[NodePaused]]:
        """The slot's actor is lost or has left. Returns seconds until its next start, and pauses of nodes."""
        life = self._lives.pop(slot, None) or _Life(asked=now, avoided=frozenset())
        failed, is_shared = loss in (Loss.FAILED, Loss.DIED), False
        if failed and not life.ready:
            is_shared = self._causes.note(cause, next(iter(life.nodes.values()), ""))
            self._failed_starts[slot] += not may_pass(cause)
        pauses = [
            self.nodes.failed(
                node_id,
                host,
                slot=slot,
                cause=cause,
                jitter=self._jitter(),
                now=now,
                may_pass=not life.ready and may_pass(cause),
                was_ready=life.ready,
                part=1 / len(life.nodes),
            )
            for node_id, host in life.nodes.items()
            if failed and not is_shared
        ]
        self.nodes.released(slot)
        self._fruitless[slot] = 0 if life.useful else self._fruitless.get(slot, 0) + 1
        wait = self._wait(self._fruitless[slot], now)
        heapq.heappush(self._due, (now + wait, slot))
        if not self._lives and self._due[0][0] > (soon := now + self._pauses.idle_seconds):
            # Pauses spare nodes and hubs; a single start spares them as well, and nothing stands still.
            _, next_slot = heapq.heapreplace(self._due, (soon, self._due[0][1]))
            wait = self._pauses.idle_seconds if next_slot == slot else wait
        return wait, [paused for paused in pauses if paused]

    def _wait(self, fruitless: int, now: float) -> float:
        """Seconds until the next start, after so many actors in a row that committed nothing."""
        waits = self._pauses.restart_seconds
        if fruitless:
            return waits[min(fruitless, len(waits)) - 1] * self._jitter()
        self._ends.append(now)
        while now - self._ends[0] > self._pauses.ramp_seconds:
            self._ends.popleft()
        return self._draw.uniform(0.0, self._ramp_of(len(self._ends)))

    def _ramp_of(self, starts: int) -> float:
        """Seconds over which so many starts are spread."""
        later = starts - self._pauses.at_once
        return min(self._pauses.ramp_seconds, later / 2) if later > 0 else 0.0

    def _jitter(self) -> float:
        return self._draw.uniform(1 - _JITTER, 1 + _JITTER)

    def why_hopeless(self, now: float, *, up: int, describe: Callable[[], str]) -> str | None:
        """Why the run is to end, if no engine will ever come up.

        up: the engines that are up now. describe: what actors request, and what the cluster has.
        """
        if up:
            self._last_up, self._ever_up = now, True
            return None
        starting = [node for life in self._lives.values() if not life.ready for node in life.nodes]
        if self._expired(now) and not starting:
            if not self._causes:
                return (
                    f"no actor could be placed for {self._timeout:g} s (cluster.start_timeout_seconds): "
                    f"{describe()}"
                )
            return (
                f"no engine was up for {self._timeout:g} s (cluster.start_timeout_seconds). {self._causes}"
                "Committed rows are kept: fix the cause and run the same command again"
            )
        failed = self._failed_starts
        all_failed = not self._ever_up and len(failed) == self._num_slots and all(failed.values())
        often = all_failed and max(failed.values(), default=0) >= _MAX_FAILED_STARTS
        if often and all(map(self.nodes.has_failed, starting)):
            return (
                f"no engine came up: every start failed. {self._causes}Fix the cause and run the same "
                "command again"
            )
        return None

    def _expired(self, now: float) -> bool:
        """From then on nothing is started: the run ends unless one of the engines that start comes up."""
        return now - self._last_up > self._timeout
