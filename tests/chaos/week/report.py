"""The table of a week, and its broken promises."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from magpie_ray.dataset.layout import SUCCESS_KEY
from tests.chaos.week.drivers import Week, peak_megabytes
from tests.chaos.week.scale import DAY, HOUR

# Of the process without what the virtual store holds; nodes and engines are in it.
_MOST_MEGABYTES = 900


def problems(week: Week, *, least_share: float, longest_wait: float) -> Iterator[str]:
    """Every broken promise.

    longest_wait: seconds for which a healthy node may be free while rows are pending.
    """
    scale = week.scale
    yield from week.failures
    if week.result is None:
        yield "the build did not end by itself"
    files = week.objects.partitions()
    ends = [0, *(rows.stop for rows in files)]
    starts = [*(rows.start for rows in files), scale.rows]
    if holes := sum(start != end for start, end in zip(starts, ends, strict=True)):
        yield f"{holes} files do not begin where the one before ends: rows are lost, or written twice"
    if SUCCESS_KEY not in week.objects.others:
        yield f"there is no {SUCCESS_KEY}"
    if week.share < least_share:
        yield f"{week.share:.1%} of the healthy capacity came into files, not {least_share:.0%}"
    if week.longest_wait > longest_wait:
        yield f"a healthy node was free for {week.longest_wait:.0f} s while partitions were pending"


def memory_problems(week: Week) -> Iterator[str]:
    """Of a process that has only run this week."""
    if (used := peak_megabytes() - week.objects.megabytes) > _MOST_MEGABYTES:
        yield f"the driver's process took {used:.0f} MB beside the virtual store"


def print_table(week: Week, console: Console) -> None:
    """Each kind of fault with its costs, then the totals."""
    table = Table("fault", title="A week in virtual time")
    for name in ("times", "actors lost", "rows generated again", "actor hours lost"):
        table.add_column(name, justify="right")
    for fault, cost in sorted(week.costs.by_fault.items()):
        table.add_row(
            fault, f"{cost.times:,}", f"{cost.losses:,}", f"{cost.rows:,}", f"{cost.seconds / HOUR:,.1f}"
        )
    console.print(table)
    scale = week.scale
    totals = {
        "rows": f"{sum(rows.num_rows for rows in week.objects.partitions()):,}",
        "files": f"{len(week.objects):,}",
        "slots": f"{scale.actors:,} of {scale.actors_per_node} a node",
        "days": f"{week.seconds / DAY:.2f}",
        "drivers": f"{week.drivers}",
        "actor hours of healthy nodes": f"{week.capacity_seconds / HOUR:,.0f}",
        "of these in files": f"{week.share:.2%}",
        "in no actor": f"{week.unused_seconds / week.capacity_seconds:.2%}",
        "in engines that lacked rows": f"{week.idle_seconds / week.capacity_seconds:.2%}",
        "longest wait of a free healthy node, s": f"{week.longest_wait:.0f}",
        "events": f"{week.events:,}",
        "driver: CPU seconds": f"{week.driver_cpu_seconds:.0f}",
        "process: peak MB": f"{peak_megabytes():.0f}",
        "of these the virtual store": f"{week.objects.megabytes:.0f}",
        "real seconds": f"{week.real_seconds:.0f}",
    }
    for name, value in totals.items():
        console.print(f"{name}: {value}", highlight=False)
