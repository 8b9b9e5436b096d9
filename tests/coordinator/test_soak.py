"""Weeks of actors that come and go: what a driver holds grows with partitions and slots, not with time."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from magpie_ray.coordinator.actors import Loss
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import Fleet
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.staffing import Staffing
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.monitoring.metrics import Telemetry
from magpie_ray.types import Partition
from magpie_ray.worker.events import Progress
from tests.monitoring.test_metrics import SNAPSHOT
from tests.support.held import growth, held_by

STARTS, SLOTS, LOOKS = 4_000, 20, 20

# One more start of an actor: its number, its slot, and when.
Step = Callable[[int, int, float], None]


def dispatching() -> tuple[object, Step]:
    """Actors on nodes that never come back, lost with what they have open. Ten partitions are left."""
    partitions = [Partition(start=10 * n, stop=10 * n + 10) for n in range(10)]
    dispatcher = Dispatcher(partitions, num_slots=SLOTS, grid=10, max_failures_per_partition=10**9)
    losses = (Loss.LEFT, Loss.NODE, Loss.DIED)

    def step(number: int, slot: int, now: float) -> None:
        dispatcher.placed(slot, f"node {number % 50}")
        dispatcher.progress(slot, started=0, finished=0, live_window=10, now=now)
        dispatcher.lost(slot, cause=f"bad luck {number}", loss=losses[number % 3])

    return dispatcher, step


def staffing() -> tuple[object, Step]:
    """Every actor on a node of its own; one in three fails, one in three writes a file, one has notice."""
    made = Staffing(start_timeout_seconds=1800.0, now=0.0, draw=random.Random(1))
    made.add(range(SLOTS), 0.0)

    def step(number: int, _: int, now: float) -> None:
        slot = made.next_due(now)
        if slot is None:
            return
        node = f"node {number}"
        made.start(slot, frozenset({node, "other"}), now)
        made.placed(slot, {node: f"host {number}"}, now)
        if number % 3:
            made.ready(slot, now)
        if number % 3 == 2:
            made.committed(slot, now)
        loss = (Loss.FAILED, Loss.LEFT, Loss.DIED)[number % 3]
        made.ended(slot, cause=f"cause number {number}", loss=loss, now=now)
        made.why_hopeless(now, up=1, describe=str)

    return made, step


def fleet() -> tuple[object, Step]:
    made = Fleet(stall_timeout_seconds=600.0, start_timeout_seconds=1800.0)
    for slot in range(SLOTS):
        made.request(slot, 0.0)

    def step(number: int, slot: int, now: float) -> None:
        made.place(slot, now)
        made.get_ready(slot, now)
        report = Progress(
            tally=Tally(rows=number, rejected={"empty": number}),
            engine=EngineStats(steps=number),
            started=number,
            live_window=8,
            doing="generating",
        )
        made.progress(slot, report, has_work=True, now=now)
        made.overdue(now)
        made.lose(slot, rows_to_redo=5, now=now)
        made.request(slot, now)

    return made, step


def telemetry() -> tuple[object, Step]:
    made = Telemetry()

    def step(number: int, _: int, now: float) -> None:
        list(made.counters(SNAPSHOT))
        list(made.gauges(SNAPSHOT, now))

    return made, step


def ledger() -> tuple[object, Step]:
    """Files that are no partitions come and go below data/."""
    made = Ledger([])

    def step(number: int, _: int, __: float) -> None:
        made.new_strays([f".nfs{number:08x}", ".DS_Store"])

    return made, step


@pytest.mark.parametrize("kind", [dispatching, staffing, fleet, telemetry, ledger])
def test_nothing_that_a_driver_holds_grows_with_the_starts_of_actors(
    kind: Callable[[], tuple[object, Step]],
) -> None:
    made, step = kind()
    samples: list[Counter[str]] = []
    for number in range(STARTS):
        step(number, number % SLOTS, 60.0 * number)
        if number % (STARTS // LOOKS) == STARTS // LOOKS - 1:
            samples.append(held_by(made))
    assert growth(samples) == {}
