"""Which faults meet which build: actors and S3, drivers and clusters, two drivers at once, passes, nodes."""

import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from tests.chaos.builds import ROWS_PER_PARTITION, Build, Ended
from tests.chaos.driver import ChaosError, Driver
from tests.chaos.engines import DIES_LATER, STARTS_FAIL
from tests.chaos.faults import ACTOR_FAULTS, KILL, MID_WRITE
from tests.chaos.ground import Ground, Node
from tests.chaos.hangs import HANGS, NOTICE_SECONDS, stop_during, suspend
from tests.chaos.jobs import Source, answering
from tests.chaos.leftovers import leave_upload, uploads_left, writes_left
from tests.chaos.s3_faults import DENIALS, S3_FAULTS, Outage
from tests.chaos.scene import Fault, Injection, drawn, timed
from tests.chaos.strikes import KILL_DRIVER, STRIKES, Strike
from tests.chaos.tampering import DropStrays, RemoveRecords

# Faults stop in time for their recovery to be seen before the work is done.
_LAST_MOMENT = 0.85
# The same command again, until it generates: a driver starts, and its actors.
_DRIVER_SECONDS = 90.0
# A driver that is to be ended is ended after so many uploads, at most.
_LONGEST_RUN = 20
# Until a broken node has failed twice, with a pause between, and is left alone.
_NODE_SECONDS = 150.0
# Engine steps: slow enough for a build to outlast its faults, or as fast as two cores go. Without any sleep
# the engine's thread would keep the others of its process from running.
_SLOW, _FAST = 0.002, 0.001
# Most faults harm an actor that has done some work before, or wait for nodes.
_HARMED = 0.006


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much of everything. rows: of each build. skip: parts of names of faults to leave out."""

    seed: int
    rows: int
    skip: tuple[str, ...] = ()

    def draw(self, scenario: str) -> random.Random:
        return random.Random(f"{self.seed} {scenario}")

    def schedule(self, faults: list[Fault], draw: random.Random) -> list[tuple[int, Fault]]:
        faults = [fault for fault in faults if not any(part in fault.name for part in self.skip)]
        return timed(faults, int(self.rows / ROWS_PER_PARTITION * _LAST_MOMENT), draw)


def actors(ground: Ground, head: Node, scale: Scale, *, harm: int, s3: int, outages: int) -> Ended:
    """One driver whose actors die, hang and fail, on a store that fails too."""
    draw = scale.draw("actors")
    faults: list[Fault] = [*drawn(ACTOR_FAULTS, harm, draw), *drawn(S3_FAULTS, s3, draw)]
    faults += [*[Outage()] * outages, *DENIALS, DropStrays(), RemoveRecords()]
    build = Build(ground, "actors", scale.rows, draw, step_seconds=_HARMED)
    driver = build.start(head.address, f"cluster.num_actors={head.num_cpus}")
    build.inject(driver, scale.schedule(faults, draw))
    build.end(driver)
    return build.close()


def drivers(ground: Ground, head: Node, scale: Scale, *, strikes: int, s3: int) -> Ended:
    """The driver, or its whole cluster, is ended during an upload; the same command goes on elsewhere."""
    draw = scale.draw("drivers")
    build = Build(ground, "drivers", scale.rows, draw, step_seconds=_FAST)
    spoils = drawn(S3_FAULTS, s3, draw)
    driver = build.start(head.address, f"cluster.num_actors={draw.randint(2, head.num_cpus)}")
    planned: list[Strike] = drawn(STRIKES, strikes, draw)
    try:
        for number, strike in enumerate(planned):
            for spoil in spoils[number :: len(planned)]:
                spoil.lie_in_wait(ground.proxy)
            successor = head
            if strike.ends_cluster:
                sizes = [size for size in (3, 4, 5) if size != head.num_cpus]
                successor = ground.start_node(num_cpus=draw.choice(sizes)).wait_until_up()
            driver = _strike(build, driver, head, strike, successor, uploads=draw.randint(2, _LONGEST_RUN))
            head = successor
    except ChaosError as exc:
        build.complaints.append(f"{exc}\n{driver.actor_logs}")
    build.end(driver)
    return build.close()


def short(ground: Ground, head: Node, scale: Scale) -> Ended:
    """A little of all that one build on one cluster can suffer; its driver is killed towards the end."""
    draw = scale.draw("short")
    faults: list[Fault] = [*drawn(ACTOR_FAULTS, 0, draw), *drawn(S3_FAULTS, 14, draw), Outage(), DropStrays()]
    build = Build(ground, "short", scale.rows, draw, step_seconds=_HARMED)
    driver = build.start(head.address, f"cluster.num_actors={head.num_cpus}")
    build.inject(driver, scale.schedule(faults, draw))
    try:
        driver = _strike(build, driver, head, KILL_DRIVER, head, uploads=1)
    except ChaosError as exc:
        build.complaints.append(f"{exc}\n{driver.actor_logs}")
    build.end(driver)
    return build.close()


def _strike(
    build: Build, driver: Driver, head: Node, strike: Strike, successor: Node, *, uploads: int
) -> Driver:
    """Ends the driver, or its cluster, during the upload after so many; the driver that goes on."""
    build.wait_for_uploads(driver, build.output.uploads() + uploads)
    _wait_for_an_upload_under_way(build, driver)
    at = time.monotonic()
    strike.strike(driver, head)
    build.end(driver, *strike.exit_codes)
    build.ground.proxy.calm()
    actors = build.draw.randint(2, successor.num_cpus)
    following = build.start(successor.address, f"cluster.num_actors={actors}")
    build.injections.append(Injection(strike.name, at, _DRIVER_SECONDS, following.first_up))
    return following


def _wait_for_an_upload_under_way(build: Build, driver: Driver) -> None:
    """The next upload stalls: until `calm`, or the client gives up."""
    proxy = build.ground.proxy
    before = sum(one.fault == "stall" for one in proxy.spoiled)
    proxy.spoil("PUT", "stall", part=f"/{build.name}/data/")
    driver.wait_for("a stalled upload", lambda: sum(one.fault == "stall" for one in proxy.spoiled) > before)


def rivals(ground: Ground, head: Node, scale: Scale, *, s3: int) -> Ended:
    """Two drivers at once: of equal num_rows, then of two larger ones with a third that has another grid.

    At last one is suspended while another one finishes the build.
    """
    draw = scale.draw("rivals")
    build = Build(ground, "rivals", scale.rows, draw, step_seconds=_FAST)
    leave_upload(build.output)
    build.injections.append(Injection("S3: SIGKILL in the middle of a multipart upload", time.monotonic()))
    for spoil in drawn(S3_FAULTS, s3, draw):
        spoil.lie_in_wait(ground.proxy)
    each = f"cluster.num_actors={head.num_cpus // 2}"
    _end_both(build, [build.start(head.address, each) for _ in range(2)], "equal num_rows")
    sizes = [scale.rows * 21 // 20, scale.rows * 22 // 20]
    growing = [build.start(head.address, each, f"num_rows={size}") for size in sizes]
    other = build.start(head.address, each, f"num_rows={sizes[0]}", "output.rows_per_partition=70")
    build.num_rows = sizes[1]
    build.injections.append(Injection("a driver with another grid", time.monotonic()))
    build.end(other, 2)
    _end_both(build, growing, "two larger num_rows")
    _wake_over_a_finished_build(build, head, each)
    build.complaints += [f"rivals: {left} was not cleaned" for left in uploads_left(build.output)]
    return build.close()


def passes(
    ground: Ground,
    head: Node,
    scale: Scale,
    *,
    harm: int,
    s3: int,
    kinds: Mapping[Fault, int] = MappingProxyType(ACTOR_FAULTS),
) -> Ended:
    """A pass over half of a source; then two drivers at once go on over all of it. All suffer."""
    draw = scale.draw("passes")
    half = replace(scale, rows=scale.rows // 2)
    source = Source(ground, "passes")
    source.grow(half.rows)
    build = Build(ground, "passes", half.rows, draw, step_seconds=_HARMED)
    build.job = answering(build.orders.folder, source)
    faults: list[Fault] = drawn(kinds, harm, draw)
    later = [faults.pop() for _ in range(len(faults) // 4)]
    driver = build.start(head.address, f"cluster.num_actors={head.num_cpus}")
    build.inject(driver, half.schedule([*faults, *drawn(S3_FAULTS, s3, draw)], draw))
    build.end(driver)
    source.grow(scale.rows)
    build.num_rows = scale.rows
    each, before = f"cluster.num_actors={head.num_cpus // 2}", build.output.uploads()
    pair = [build.start(head.address, each) for _ in range(2)]
    # Soon, as the other driver does half of the work.
    timed_later = replace(scale, rows=scale.rows // 4).schedule(later, draw)
    build.inject(pair[0], [(before + uploads, fault) for uploads, fault in timed_later])
    _end_both(build, pair, "over a source that has grown")
    return build.close()


def _end_both(build: Build, pair: Sequence[Driver], what: str) -> None:
    build.injections.append(Injection(f"two drivers at once, {what}", time.monotonic()))
    for driver in pair:
        build.end(driver)
        if not any(actor.up_at for actor in driver.actors):
            build.complaints.append(f"{build.name}: one of two drivers ({what}) did nothing")


def _wake_over_a_finished_build(build: Build, head: Node, each: str) -> None:
    """A driver sleeps while another one of more rows finishes the build, and wakes over it."""
    sizes = [build.num_rows * 21 // 20, build.num_rows * 22 // 20]
    zombie = build.start(head.address, each, f"num_rows={sizes[0]}")
    try:
        build.wait_for_uploads(zombie, build.output.uploads() + 1)
    except ChaosError as exc:
        build.complaints.append(f"{exc}\n{zombie.actor_logs}")
    zombie.process.send_signal(signal.SIGSTOP)
    build.num_rows = sizes[1]
    build.end(build.start(head.address, each, f"num_rows={sizes[1]}"))
    woken = time.monotonic()
    zombie.process.send_signal(signal.SIGCONT)
    build.end(zombie)
    name = "driver: SIGSTOP while another one finishes the build"
    build.injections.append(Injection(name, woken, recovered=lambda: zombie.ended_at))


def nodes(ground: Ground, scale: Scale, *, kills: int) -> Ended:
    """A node comes, is lost, and comes back; actors are killed while they write to a disk."""
    draw = scale.draw("nodes")
    rows = scale.rows * 3 // 2  # nodes take their time to come, and to be left alone
    build = Build(ground, "nodes", rows, draw, step_seconds=_HARMED, on_disk=True)
    head = ground.start_node(num_cpus=2).wait_until_up()
    driver = build.start(head.address, "cluster.num_actors=auto")
    try:
        node = _add_node(build, driver, head)
        build.inject(driver, [(build.output.uploads() + 2 * i, MID_WRITE) for i in range(kills)])
        _lose_node(build, driver, node)
        _add_node(build, driver, head)
        build.inject(driver, [(build.output.uploads() + 2, KILL)])
        for broken in (STARTS_FAIL, DIES_LATER):
            _add_broken_node(build, driver, head, broken)
    except ChaosError as exc:
        build.complaints.append(f"{exc}\n{driver.actor_logs}")
    build.end(driver)
    if writes_left(build.output, age=True):
        build.end(build.start(head.address))
        build.complaints += [f"nodes: {left} was not cleaned" for left in writes_left(build.output)]
    for injection in build.injections:  # a node on which two actors were killed is left alone for a minute
        injection.limit_seconds = max(injection.limit_seconds, _NODE_SECONDS)
    return build.close()


def hangs(ground: Ground, scale: Scale) -> Ended:
    """The driver is suspended; then drivers are told to stop while their store or their cluster hangs."""
    draw = scale.draw("hangs")
    build = Build(ground, "hangs", scale.rows // 2, draw, step_seconds=_SLOW)
    head = ground.start_node(num_cpus=2).wait_until_up()
    settings = ("cluster.num_actors=2", f"cluster.notice_seconds={NOTICE_SECONDS}")
    driver = build.start(head.address, *settings)
    try:
        driver.wait_until_up()  # its trial of the store is an upload, too
        build.wait_for_uploads(driver, build.output.uploads() + 2)
        suspend(build, driver)
        for hang in HANGS:
            # Until then the actors of the driver before may still upload.
            driver.wait_until_up()
            build.wait_for_uploads(driver, build.output.uploads() + 2)
            stop_during(build, driver, head, hang)
            if hang.ends_cluster:
                head = ground.start_node(num_cpus=2).wait_until_up()
            driver = build.start(head.address, *settings)
    except ChaosError as exc:
        build.complaints.append(f"{exc}\n{driver.actor_logs}")
    build.end(driver)
    return build.close()


def _add_node(build: Build, driver: Driver, head: Node) -> Node:
    """Two more CPUs, which cluster.num_actors=auto is to use. Recovered: an engine more is up."""
    build.wait_for_uploads(driver, build.output.uploads() + 2)
    at = time.monotonic()
    node = build.ground.start_node(num_cpus=2, head=head)

    def used() -> float | None:
        up = [a.up_at for a in driver.actors if a.up_at and a.placed_at > at and a.slot >= head.num_cpus]
        return min(up, default=None)

    driver.wait_for("using the node that was added", used)
    build.injections.append(Injection("node: added", at, recovered=used))
    return node


def _add_broken_node(build: Build, driver: Driver, head: Node, broken: str) -> None:
    """A node on which engines fail. Recovered: the driver leaves it alone, and goes on without it."""
    at, before = time.monotonic(), len(driver.left_alone)
    node = build.ground.start_node(num_cpus=1, head=head, broken=broken)
    driver.wait_for(
        f"leaving a node alone ({broken})", lambda: len(driver.left_alone) > before, seconds=_NODE_SECONDS
    )
    noticed = time.monotonic()
    build.injections.append(
        Injection(f"node: {broken}", at, limit_seconds=_NODE_SECONDS, recovered=lambda: noticed)
    )
    build.wait_for_uploads(driver, build.output.uploads() + 1)
    node.kill()


def _lose_node(build: Build, driver: Driver, node: Node) -> None:
    """SIGKILL of all its processes. Recovered: the driver has given its work to others."""
    struck = [a for a in driver.actors if a.lost_at is None and a.slot >= 2]
    at = time.monotonic()
    node.kill()
    driver.wait_for("the loss of the node's actors", lambda: all(actor.lost_at for actor in struck))
    noticed = time.monotonic()
    build.injections.append(Injection("node: SIGKILL of all of it", at, recovered=lambda: noticed))
