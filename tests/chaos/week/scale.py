"""How much of everything a week has."""

from dataclasses import dataclass
from math import ceil

HOUR = 3600.0
DAY = 24 * HOUR
# What is wrong with a broken node, each in turn.
STARTS_FAIL, DIES, HANGS, SLOW, NO_ACCESS = (
    "broken node: starts fail",
    "broken node: dies after minutes",
    "broken node: hangs",
    "broken node: ten times slow",
    "broken node: no access to the store",
)
BROKEN = (STARTS_FAIL, DIES, HANGS, SLOW, NO_ACCESS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """One simulated build. Times are virtual seconds.

    nodes: of the first cluster; each later driver gets a cluster with another number, from `fewest` to
    `most` of it. days: what the healthy nodes would take about, which gives the seconds that a row takes.
    stay_seconds: mean time until a node leaves. notice: the share of them that leaves on notice. broken:
    the share of nodes with a fault. report_seconds: between two reports of a worker; real ones report more
    often, and cost as much each. gather_seconds: for which the job lets events gather. request_seconds: of
    one request to the store.
    """

    seed: int = 0
    rows: int = 100_000_000
    rows_per_partition: int = 300
    nodes: int = 500
    actors_per_node: int = 1
    days: float = 7.0
    fewest: float = 0.8
    most: float = 1.04
    live_window: int = 12
    prompts: int = 20
    least_rejected: float = 0.05
    most_rejected: float = 0.85
    stay_seconds: float = 8 * HOUR
    notice: float = 0.5
    notice_seconds: float = 120.0
    away_seconds: tuple[float, float] = (120.0, 1200.0)
    broken: float = 0.02
    start_seconds: tuple[float, float] = (90.0, 180.0)
    hub_refuses_seconds: float = 600.0
    outage_at: float = 2.4 * DAY
    outage_seconds: float = 1200.0
    driver_lives_seconds: float = DAY
    driver_away_seconds: tuple[float, float] = (120.0, 900.0)
    report_seconds: float = 400.0
    gather_seconds: float = 8.0
    request_seconds: float = 0.2

    @property
    def actors(self) -> int:
        return self.nodes * self.actors_per_node

    @property
    def row_seconds(self) -> float:
        """Of one healthy engine for one row, its rejected attempts included."""
        return self.actors * self.days * DAY / self.rows


def long(seed: int, *, actors_per_node: int = 1) -> Scale:
    """A week of 500 actors."""
    return Scale(seed=seed, nodes=ceil(500 / actors_per_node), actors_per_node=actors_per_node)


def short(seed: int, *, actors_per_node: int = 1) -> Scale:
    """Half a day of 50 actors, with all kinds of faults."""
    return Scale(
        seed=seed,
        rows=700_000,
        nodes=ceil(50 / actors_per_node),
        actors_per_node=actors_per_node,
        days=0.5,
        broken=0.1 if actors_per_node == 1 else 0.2,
        outage_at=0.15 * DAY,
        driver_lives_seconds=0.2 * DAY,
        request_seconds=0.5,
    )
