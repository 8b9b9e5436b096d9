"""Faults of actors and their engines: small classes, each of which injects one fault."""

import os
import re
import signal
import time
from dataclasses import dataclass

from magpie_ray.coordinator.staffing import Pauses
from tests.chaos.driver import Actor, is_alive, send
from tests.chaos.outputs import LocalOutput
from tests.chaos.scene import RECOVERY_SECONDS, Fault, Injection, Scene, replaced

# Until a slot is up again whose start failed. Other faults may hit its next starts, and the pauses grow.
_START_SECONDS = RECOVERY_SECONDS + sum(Pauses().restart_seconds[:3])
# Looking for a write that takes milliseconds, before the driver's log is looked at again.
_CATCHING_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal to an actor's process. SIGTERM is a spot notice, SIGSTOP a hang."""

    name: str
    number: signal.Signals
    starting: bool = False

    def inject(self, scene: Scene) -> None:
        while True:
            actor, at = scene.victim(starting=self.starting), time.monotonic()
            if send(actor.pid, self.number):
                return scene.note(self.name, actor, at)


@dataclass(frozen=True, slots=True)
class Order:
    """An order to an engine, which it obeys at its next step."""

    name: str
    order: str
    loses_actor: bool = True

    def inject(self, scene: Scene) -> None:
        while True:
            actor = scene.victim()
            path = scene.orders.give(actor.pid, self.order)
            obeyed = scene.driver.wait_for(
                f"obeying {self.order!r}",
                lambda path=path, actor=actor: (  # type: ignore[misc]
                    "yes" if not path.exists() else None if is_alive(actor.pid) else "it died before"
                ),
            )
            if obeyed == "yes":
                break
            path.unlink(missing_ok=True)
        if self.loses_actor:
            return scene.note(self.name, actor, time.monotonic())
        scene.injections.append(Injection(self.name, time.monotonic()))
        return None


def _writer(temporary: str) -> int:
    """The process that a temporary file is of, by its name: HOST.PID-RANDOM."""
    found = re.search(r"(\d+)-", temporary)
    return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class KillMidWrite:
    """SIGKILL of an actor whose temporary file is on the disk and not yet, or just, in data/."""

    name: str = "actor: SIGKILL in the middle of a local write"

    def inject(self, scene: Scene) -> None:
        assert isinstance(scene.output, LocalOutput)
        temporary = scene.output.path / "_magpie/tmp"

        def caught() -> Actor | None:
            deadline = time.monotonic() + _CATCHING_SECONDS
            while time.monotonic() < deadline:
                for name in os.listdir(temporary):
                    actor = scene.running.get(_writer(name))
                    if actor and send(actor.pid, signal.SIGSTOP):
                        if (temporary / name).exists():
                            return actor
                        send(actor.pid, signal.SIGCONT)
            return None

        actor = scene.driver.wait_for("a write to interrupt", caught)
        at = time.monotonic()
        send(actor.pid, signal.SIGKILL)
        scene.note(self.name, actor, at)


@dataclass(frozen=True, slots=True)
class FailsToStart:
    """An actor is killed, and the next engine that starts fails to; the one after that does not."""

    name: str = "engine fails to start"

    def inject(self, scene: Scene) -> None:
        driver = scene.driver
        path = scene.orders.path("start")
        driver.wait_for("an engine's start", lambda: not path.exists())
        at = time.monotonic()
        scene.orders.give("start", "fail")
        while not send((victim := scene.victim()).pid, signal.SIGKILL):
            pass
        scene.harmed.add(victim.pid)

        def failed() -> Actor | None:
            refused = [a for a in driver.actors if (a.lost_at or 0.0) > at and "no room" in a.cause]
            return refused[0] if refused else None

        def recovered() -> float | None:
            actor = failed()
            return replaced(driver, actor) if actor else None

        driver.wait_for("a failed start", failed)
        scene.injections.append(Injection(self.name, at, _START_SECONDS, recovered=recovered))


KILL = Signal("actor: SIGKILL", signal.SIGKILL)
KILL_STARTING = Signal("actor: SIGKILL while its engine starts", signal.SIGKILL, starting=True)
TERM = Signal("actor: SIGTERM (spot notice)", signal.SIGTERM)
STOP = Signal("actor: SIGSTOP (hangs)", signal.SIGSTOP)
RAISES = Order("engine raises in step()", "raise")
BLOCKS = Order("engine blocks in step()", "block")
SILENT = Order("engine steps and generates nothing", "silent")
SLOW = Order("engine 10x slower", "slow", loses_actor=False)
MID_WRITE = KillMidWrite()
CLOCK = Order("clock jumps by a day", "clock", loses_actor=False)

# Each with its share.
ACTOR_FAULTS: dict[Fault, int] = {
    KILL: 20,
    KILL_STARTING: 4,
    TERM: 4,
    STOP: 2,
    RAISES: 5,
    BLOCKS: 2,
    SILENT: 2,
    FailsToStart(): 3,
    SLOW: 3,
    CLOCK: 7,
}
