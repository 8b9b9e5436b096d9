"""What all actors of one driver share, and what came of their work."""

import random
from dataclasses import dataclass, field

from tests.chaos.week.agenda import Agenda
from tests.chaos.week.cluster import Cluster
from tests.chaos.week.costs import Costs
from tests.chaos.week.prompts import Prompts
from tests.chaos.week.scale import Scale
from tests.chaos.week.store import Objects


@dataclass(slots=True)
class Gain:
    """What came of a driver's engines, in seconds of whole batches on healthy nodes.

    useful: in files. idle: of engines with too few rows. before, unused_before: the capacity of healthy nodes
    before any engine was up, and the part of it that no actor had. tail: when nothing was pending any more.
    """

    useful: float = 0.0
    idle: float = 0.0
    first_ready: float | None = None
    before: float = 0.0
    unused_before: float = 0.0
    tail: float | None = None


@dataclass(kw_only=True, slots=True)
class World:
    """run: the number that goes into footers."""

    scale: Scale
    agenda: Agenda
    cluster: Cluster
    objects: Objects
    prompts: Prompts
    costs: Costs
    draw: random.Random
    run: int
    gain: Gain = field(default_factory=Gain)

    @property
    def now(self) -> float:
        return self.agenda.now

    def note_ready(self) -> None:
        """An engine is up."""
        gain = self.gain
        if gain.first_ready is None:
            gain.first_ready = self.now
            gain.before, gain.unused_before = self.cluster.usable_seconds, self.cluster.unused.seconds
