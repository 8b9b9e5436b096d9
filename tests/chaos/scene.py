"""What faults have in common: an injection that happened, and what of a running build a fault may reach.

Invariant: an Injection stands for one fault that really happened, at the moment it did.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from tests.chaos.driver import Actor, Driver, is_alive
from tests.chaos.engines import Orders
from tests.chaos.ground import WatchedProxy
from tests.chaos.outputs import Output

T = TypeVar("T")

# Recoveries on two busy cores; a replacement takes 3 s alone.
RECOVERY_SECONDS = 60.0
# By then an actor has stored a file.
_SETTLED_SECONDS = 8.0


@dataclass(slots=True, eq=False)
class Injection:
    """A fault that happened. `recovered`: the moment it was over, None while it is not, or no such thing."""

    fault: str
    at: float
    limit_seconds: float = RECOVERY_SECONDS
    recovered: Callable[[], float | None] | None = None


@dataclass(slots=True)
class Scene:
    """What a fault may reach: the driver of the moment, its actors, the store."""

    random: random.Random
    orders: Orders
    proxy: WatchedProxy
    driver: Driver
    output: Output
    harmed: set[int] = field(default_factory=set)
    injections: list[Injection] = field(default_factory=list)

    @property
    def running(self) -> dict[int, Actor]:
        """By process, those with an engine that nothing was done to."""
        return {a.pid: a for a in self.driver.actors if a.is_running and a.pid not in self.harmed}

    def victim(self, *, starting: bool = False) -> Actor:
        """An actor that nothing was done to, one whose engine is starting where that is asked for.

        Others have been up for long enough to have stored rows: an actor that ends before waits for its
        successor longer each time, as one that can't work does.
        """

        def look() -> Actor | None:
            fit = [
                actor
                for actor in self.driver.actors
                if actor.lost_at is None and actor.pid not in self.harmed and is_alive(actor.pid)
            ]
            begun = time.monotonic() - _SETTLED_SECONDS
            running = [actor for actor in fit if actor.up_at is not None and actor.up_at < begun]
            young = [actor for actor in fit if actor.up_at is None] if starting else []
            return self.random.choice(young or running) if young or running else None

        return self.driver.wait_for("an actor to harm", look)

    def note(self, fault: str, actor: Actor, at: float) -> None:
        """Something was done to an actor, whose replacement is its recovery."""
        driver = self.driver
        self.harmed.add(actor.pid)
        self.injections.append(Injection(fault, at, recovered=lambda: replaced(driver, actor)))


def replaced(driver: Driver, actor: Actor) -> float | None:
    """When the engine of the slot's next actor was up, or the run's end where others did its work before."""
    later = [
        other.up_at
        for other in driver.actors
        if other.slot == actor.slot and other.placed_at > actor.placed_at and other.up_at is not None
    ]
    return later[0] if later else driver.ended_at


class Fault(Protocol):
    """Something that can go wrong in a running build."""

    @property
    def name(self) -> str: ...

    def inject(self, scene: Scene) -> None: ...


def drawn(shares: Mapping[T, int], number: int, draw: random.Random) -> list[T]:
    """So many faults in a random order, each kind by its share and at least once."""
    total = sum(shares.values())
    faults = [fault for fault, share in shares.items() for _ in range(max(1, round(share * number / total)))]
    draw.shuffle(faults)
    return faults


def timed(faults: list[Fault], moments: int, draw: random.Random) -> list[tuple[int, Fault]]:
    """When each is injected: after so many uploads, of the `moments` there are."""
    return sorted(((draw.randint(1, moments), fault) for fault in faults), key=lambda item: item[0])
