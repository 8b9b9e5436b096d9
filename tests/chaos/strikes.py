"""Ends of a driver, or of the whole cluster under it."""

import signal
from dataclasses import dataclass

from tests.chaos.driver import Driver
from tests.chaos.ground import Node


@dataclass(frozen=True, kw_only=True, slots=True)
class Strike:
    """A signal to the driver, or (None) SIGKILL of its cluster. exit_codes: what the driver may end with."""

    name: str
    number: signal.Signals | None
    exit_codes: tuple[int, ...]

    @property
    def ends_cluster(self) -> bool:
        return self.number is None

    def strike(self, driver: Driver, head: Node) -> None:
        if self.number is None:
            head.kill()
        else:
            driver.process.send_signal(self.number)


KILL_DRIVER = Strike(name="driver: SIGKILL", number=signal.SIGKILL, exit_codes=(-9,))
# Each with its share.
STRIKES: dict[Strike, int] = {
    KILL_DRIVER: 3,
    Strike(name="driver: SIGTERM", number=signal.SIGTERM, exit_codes=(3,)): 2,
    Strike(name="driver: SIGINT", number=signal.SIGINT, exit_codes=(3,)): 1,
    Strike(name="cluster: SIGKILL of all of it", number=None, exit_codes=(1,)): 2,
}
