"""One chaos build: its drivers, one after another or side by side, its injections and its outcome.

Invariants: a violation becomes a complaint and the build goes on, so that one run reports all of them; no
driver outlives the build.
"""

import random
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from tests.chaos.driver import Actor, ChaosError, Driver, is_alive
from tests.chaos.engines import Orders
from tests.chaos.ground import Ground
from tests.chaos.jobs import GENERATE, Job
from tests.chaos.outputs import LocalOutput, Output, Rows, S3Output, count_rows
from tests.chaos.s3_faults import spoiled_requests
from tests.chaos.scene import Fault, Injection, Scene

ROWS_PER_PARTITION = 100
_STALL_SECONDS = 8
_SETTINGS = (
    f"output.rows_per_partition={ROWS_PER_PARTITION}",
    f"cluster.stall_timeout_seconds={_STALL_SECONDS}",
    # Injected failures may hit the same partition several times.
    "cluster.max_failures_per_partition=10",
)
# The client gives up a stalled request early enough for its retry to be seen.
_S3_SETTINGS = ("output.storage_options={config_kwargs: {read_timeout: 4}}",)
# An actor's process may outlive its driver for so long: Ray gives a hanging process five seconds.
_ORPHAN_SECONDS = 20.0
_WRITTEN = re.compile(r"part-\d+\.parquet \(rows (\d+)\.\.(\d+)\) (?:committed|was there already)")
_DROPPED = re.compile(r"rows (\d+)\.\.(\d+) was dropped")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The rows that a lost actor generated in vain. bound: the rows that it left undone or had to drop."""

    cause: str
    regenerated_rows: float
    bound: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A build after its end."""

    name: str
    seconds: float
    injections: tuple[Injection, ...]
    costs: tuple[Cost, ...]
    rows: Rows
    complaints: tuple[str, ...]


@dataclass(slots=True)
class Build:
    """A build of `num_rows` rows in an output of its own, on disk or S3. job: the command that makes it."""

    ground: Ground
    name: str
    num_rows: int
    draw: random.Random
    step_seconds: float
    on_disk: bool = False
    job: Job = GENERATE
    complaints: list[str] = field(default_factory=list)
    injections: list[Injection] = field(default_factory=list)
    drivers: list[Driver] = field(default_factory=list)
    output: Output = field(init=False)
    orders: Orders = field(init=False)
    _began: float = field(init=False)
    _spoiled_before: int = field(init=False)

    def __post_init__(self) -> None:
        folder = self.ground.home / self.name
        self.orders = Orders(folder)
        self.output = LocalOutput(folder / "build") if self.on_disk else S3Output(self.ground, self.name)
        self._began = time.monotonic()
        self._spoiled_before = len(self.ground.proxy.spoiled)

    def start(self, address: str, *settings: str) -> Driver:
        """A driver on the cluster at that address."""
        given = [f"output.path={self.output.url}", f"cluster.address={address}"]
        driver = Driver(
            self.ground,
            self.orders.folder,
            *self.job.command,
            *((f"num_rows={self.num_rows}",) if self.job.sized else ()),
            *given,
            *_SETTINGS,
            *(() if self.on_disk else _S3_SETTINGS),
            *settings,
            step_seconds=self.step_seconds,
            log=self.orders.folder / f"driver-{len(self.drivers) + 1}.log",
        )
        self.drivers.append(driver)
        return driver

    def scene(self, driver: Driver) -> Scene:
        """The build as faults see it."""
        return Scene(
            self.draw, self.orders, self.ground.proxy, driver, self.output, injections=self.injections
        )

    def wait_for_uploads(self, driver: Driver, number: int) -> None:
        """Until so many files were put into data/."""
        driver.wait_for(f"{number} uploads", lambda: self.output.uploads() >= number)

    def inject(self, driver: Driver, schedule: Iterable[tuple[int, Fault]]) -> None:
        """Faults, each after so many uploads of this build; a complaint when one can't be injected."""
        scene = self.scene(driver)
        try:
            for uploads, fault in schedule:
                self.wait_for_uploads(driver, uploads)
                fault.inject(scene)
        except ChaosError as exc:
            self.complaints.append(f"{exc}\n{driver.actor_logs}")

    def end(self, driver: Driver, *codes: int) -> int | None:
        """Waits for the driver; complains of an exit code not among these (or 0), and of what it leaves."""
        try:
            code = driver.end(self.output.uploads)
        except ChaosError as exc:
            self.complaints.append(str(exc))
            return None
        if code not in (codes or (0,)):
            self.complaints.append(f"a driver of {self.name} exited with {code}:\n{driver.actor_logs}")
        left = _outlive(driver.actors)
        if left:
            self.complaints.append(f"{self.name}: processes {left} outlived their driver")
        return code

    def close(self) -> Ended:
        """The end: recoveries that the end of a run stands for, costs, and every row."""
        for driver in self.drivers:
            driver.kill()
        ended = time.monotonic()
        spoiled = self.ground.proxy.spoiled[self._spoiled_before :]
        ends = [driver.ended_at for driver in self.drivers]
        losses = [actor.lost_at for driver in self.drivers for actor in driver.actors]
        self.injections += spoiled_requests(spoiled, [at for at in (*ends, *losses) if at is not None])
        rows = count_rows(self.output, self.num_rows, self.job)
        return Ended(
            name=self.name,
            seconds=ended - self._began,
            injections=tuple(self.injections),
            costs=tuple(self._cost(actor) for d in self.drivers for actor in d.actors if actor.lost_at),
            rows=rows,
            complaints=tuple(self.complaints),
        )

    def _cost(self, actor: Actor) -> Cost:
        """The cost of a lost actor, without rejected attempts, which are in vain anyway."""
        messages, empty = self.orders.answered(actor.pid)
        logs = [path.read_text(errors="replace") for path in self.ground.actor_logs(actor.pid)]
        written, dropped = (sum(_rows_in(log, line) for log in logs) for line in (_WRITTEN, _DROPPED))
        generated = (messages - self.job.wasted * empty) / self.job.messages
        return Cost(
            cause=actor.cause,
            regenerated_rows=max(0.0, generated - written),
            bound=actor.undone_rows + dropped,
        )


def _rows_in(log: str, line: re.Pattern[str]) -> int:
    """Rows of all partitions that such lines name."""
    return sum(int(last) - int(first) + 1 for first, last in line.findall(log))


def _outlive(actors: Iterable[Actor]) -> list[int]:
    """Actors that are still there a while after their driver is gone."""
    pids = [actor.pid for actor in actors]

    @retry(
        stop=stop_after_delay(_ORPHAN_SECONDS),
        wait=wait_fixed(0.05),
        retry=retry_if_result(bool),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else [],
    )
    def left() -> list[int]:
        return [pid for pid in pids if is_alive(pid)]

    return left()
