"""A driver that is suspended, and one that is told to stop while something that it waits for hangs."""

import signal
import time
from dataclasses import dataclass
from typing import Protocol

from tests.chaos.builds import Build
from tests.chaos.driver import Driver
from tests.chaos.ground import Node
from tests.chaos.scene import RECOVERY_SECONDS, Injection

# cluster.notice_seconds of these drivers, and what an exit may take beyond it.
NOTICE_SECONDS, _MORE_SECONDS = 10, 5.0
# Longer than any time limit on a head or an actor here, and than Ray's own minute.
_SUSPENDED_SECONDS = 70.0
# A hang is noticed by nobody in this time.
_HANGING_SECONDS = 2.0


class Hang(Protocol):
    """Something that hangs. ends_cluster: whether the cluster is of no use afterwards."""

    @property
    def name(self) -> str: ...

    @property
    def ends_cluster(self) -> bool: ...

    def begin(self, build: Build, head: Node) -> None: ...

    def end(self, build: Build, head: Node) -> None: ...


@dataclass(frozen=True, slots=True)
class StoreHangs:
    """No request to the store is answered."""

    name: str = "driver: SIGTERM while no request to S3 is answered"
    ends_cluster: bool = False

    def begin(self, build: Build, head: Node) -> None:
        build.ground.proxy.storm(1.0, ["stall"], seed=0)

    def end(self, build: Build, head: Node) -> None:
        build.ground.proxy.calm()


@dataclass(frozen=True, slots=True)
class RayHangs:
    """A process of Ray's on the head node is frozen. A frozen raylet is dead to Ray when it wakes."""

    process: str
    ends_cluster: bool

    @property
    def name(self) -> str:
        return f"driver: SIGTERM while {self.process} is frozen"

    def begin(self, build: Build, head: Node) -> None:
        head.signal(self.process, signal.SIGSTOP)

    def end(self, build: Build, head: Node) -> None:
        if self.ends_cluster:
            head.kill()
        else:
            head.signal(self.process, signal.SIGCONT)


HANGS: tuple[Hang, ...] = (StoreHangs(), RayHangs("gcs_server", False), RayHangs("raylet", True))


def stop_during(build: Build, driver: Driver, head: Node, hang: Hang) -> None:
    """SIGTERM while something hangs. Recovered: the driver has ended, with its exit code."""
    hang.begin(build, head)
    time.sleep(_HANGING_SECONDS)
    at = time.monotonic()
    driver.process.send_signal(signal.SIGTERM)
    driver.wait_until_ended()
    build.injections.append(
        Injection(hang.name, at, NOTICE_SECONDS + _MORE_SECONDS, recovered=lambda: driver.ended_at)
    )
    hang.end(build, head)
    build.end(driver, 3)


def suspend(build: Build, driver: Driver) -> None:
    """SIGSTOP of the driver alone, for longer than a minute. Recovered: another file is there."""
    driver.process.send_signal(signal.SIGSTOP)
    time.sleep(_SUSPENDED_SECONDS)
    driver.process.send_signal(signal.SIGCONT)
    at, uploads = time.monotonic(), build.output.uploads()
    build.wait_for_uploads(driver, uploads + 2)
    over = time.monotonic()
    build.injections.append(
        Injection("driver: suspended for 70 s", at, RECOVERY_SECONDS, recovered=lambda: over)
    )
