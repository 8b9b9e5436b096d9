"""What a run knows of each node: how often actors failed there, and until when no actor is to start there.

A node is known by its id in Ray. A machine whose node died and came back has a new id and gets another
chance, because a host name may belong to several nodes, and to other hardware tomorrow. Times are seconds of
one monotonic clock, given by the caller. Invariants: a node is left alone after two failures, each time for
longer; then a single actor tries it, and the node is open again once that actor has committed a file, or once
its engine is up where only starts had failed.
"""

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass

# So many failures, and the node is left alone.
_FAILURES = 2
# How long, the first time and after each further failure.
PAUSES_SECONDS = (60.0, 300.0, 900.0, 3600.0)
# Failures are forgotten when an actor that started after the last one commits a file so much later.
_FORGOTTEN_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NodePaused:
    """No actor starts on the node for `seconds`. failures: since the node last did well for long."""

    node_id: str
    host: str
    failures: int
    seconds: float
    cause: str

    def __str__(self) -> str:
        return (
            f"node {self.host} ({self.node_id[:8]}) has failed {self.failures} times: no actor starts there "
            f"for {self.seconds:.0f} s"
        )


@dataclass(slots=True)
class _Node:
    """A node that has failed. tried: when an actor last failed there, or was sent there. paused: when the
    last pause began.

    trial: the slot whose actor tries it. breaks: engines that were up have failed there. blame: failures, of
    which each node of an engine over several bears its part.
    """

    host: str
    failures: int = 0
    blame: float = 0.0
    pauses: int = 0
    paused: float = 0.0
    until: float = 0.0
    failed: float = 0.0
    tried: float = 0.0
    trial: int | None = None
    breaks: bool = False

    @property
    def is_open(self) -> bool:
        return self.blame < _FAILURES - 1e-9  # three thirds are a little less than one

    def open(self) -> None:
        """The actor that tried it does well there. One more failure, and it is left alone again."""
        self.trial, self.failures, self.blame = None, _FAILURES - 1, _FAILURES - 1

    def due(self, now: float) -> bool:
        """Whether one actor may try the node again."""
        return not self.is_open and self.until <= now and self.trial is None


class Nodes:
    """The nodes that have failed. pauses_seconds: for how long a node is left alone, time after time."""

    def __init__(self, *, pauses_seconds: Sequence[float] = PAUSES_SECONDS) -> None:
        self._pauses = pauses_seconds
        self._nodes: dict[str, _Node] = {}

    def failed(
        self,
        node_id: str,
        host: str,
        *,
        slot: int,
        cause: str,
        jitter: float,
        now: float,
        may_pass: bool = False,
        was_ready: bool = True,
        part: float = 1.0,
    ) -> NodePaused | None:
        """The slot's actor failed on the node. Returns the pause that begins now, if any.

        jitter: a factor of the pause. may_pass: the cause may be over soon, so pauses do not grow after the
        second one. was_ready: its engine had been up. part: of the blame, 1 for an engine on one node. Actors
        that started before a pause may fail during it; that is one failure more, and no other pause.
        """
        node = self._nodes.setdefault(node_id, _Node(host=host))
        node.failures += 1
        node.blame += part
        node.breaks |= was_ready
        node.failed = node.tried = now
        was_trial = node.trial == slot
        if was_trial:
            node.trial = None
        if node.is_open or (node.pauses and not was_trial and (node.until > now or node.trial is not None)):
            return None
        node.paused = now
        node.until = now + self._pauses[min(node.pauses, len(self._pauses) - 1)] * jitter
        node.pauses = max(1, node.pauses) if may_pass else node.pauses + 1
        return NodePaused(
            node_id=node_id, host=host, failures=node.failures, seconds=node.until - now, cause=cause
        )

    def ready(self, node_id: str, *, slot: int) -> None:
        """The slot's engine is up there. Where only starts had failed, the node is open again."""
        node = self._nodes.get(node_id)
        if node is not None and node.trial == slot and not node.breaks:
            node.open()

    def committed(self, node_id: str, *, slot: int, placed: float, now: float) -> None:
        """The slot's actor, which has been on the node since `placed`, has written a file."""
        node = self._nodes.get(node_id)
        if node is None or placed < node.failed:
            return
        if node.trial == slot:
            node.open()
        if now - node.failed >= _FORGOTTEN_SECONDS:
            del self._nodes[node_id]

    def released(self, slot: int, *, node_ids: Collection[str] = ()) -> None:
        """The slot's actor is on these nodes, or gone: it tries no other node."""
        for other, node in self._nodes.items():
            if node.trial == slot and other not in node_ids:
                node.trial = None

    def choose_avoided(self, slot: int, present: Set[str], now: float, *, least: int = 1) -> frozenset[str]:
        """The nodes that an actor of the slot is to avoid; `present`: those that could hold it.

        One node whose pause is over is left out: this actor may try it. Where fewer than `least` would be
        left, those that were tried least recently are left out, too: an engine may need several nodes.
        """
        self._forget_gone(present, now)
        there = (self._nodes.keys() & present) if present else self._nodes.keys()
        due = [node_id for node_id in there if self._nodes[node_id].due(now)]
        if due:
            self._nodes[min(due, key=lambda node_id: (self._nodes[node_id].until, node_id))].trial = slot
        avoided = {
            node_id
            for node_id in there
            if not self._nodes[node_id].is_open and self._nodes[node_id].trial != slot
        }
        while avoided and len(present - avoided) < least and present:
            chosen = min(avoided, key=lambda node_id: (self._nodes[node_id].tried, node_id))
            self._nodes[chosen].tried = now
            avoided.remove(chosen)
        return frozenset(avoided)

    def opened(self, slot: int, avoided: Set[str], now: float) -> bool:
        """Whether one of these nodes is open by now, or may be tried by the slot, if it tries no other."""
        tries = any(node.trial == slot for node in self._nodes.values())
        return any(
            node is None or node.is_open or (node.due(now) and not tries)
            for node in (self._nodes.get(node_id) for node_id in avoided)
        )

    def paused_since(self, slot: int, when: float) -> frozenset[str]:
        """The nodes that are left alone since a moment after `when`, and that the slot does not try."""
        return frozenset(
            node_id
            for node_id, node in self._nodes.items()
            if node.paused > when and not node.is_open and node.trial != slot
        )

    def left_alone(self) -> tuple[str, ...]:
        """Hosts of the nodes on which no actor starts now, except one that tries the node."""
        return tuple(sorted(node.host for node in self._nodes.values() if not node.is_open))

    def has_failed(self, node_id: str) -> bool:
        return node_id in self._nodes

    def _forget_gone(self, present: Set[str], now: float) -> None:
        """Nodes that are gone would fill the memory of a run on spot instances."""
        gone = [
            node_id
            for node_id, node in self._nodes.items()
            if node_id not in present and now - node.tried > _FORGOTTEN_SECONDS and node.until <= now
        ]
        for node_id in gone:
            del self._nodes[node_id]
