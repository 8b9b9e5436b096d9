"""The table at the end: the cost of each kind of fault, and every broken promise."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.chaos.builds import Cost, Ended
from tests.chaos.scene import Injection


def problems(builds: Sequence[Ended], faults: int) -> list[str]:
    """Every broken promise; empty when there is none."""
    found = []
    for build in builds:
        rows = build.rows
        found += build.complaints
        if rows.lost or rows.twice or rows.foreign:
            found.append(f"{build.name}: {rows.lost} rows lost, {rows.twice} twice, {rows.foreign} foreign")
        found += [f"{build.name}: {problem}" for problem in rows.problems]
        for injection in build.injections:
            seconds = _seconds(injection)
            if seconds is not None and seconds > injection.limit_seconds:
                found.append(f"{build.name}: {injection.fault} took {seconds:.0f} s to recover from")
        for cost in build.costs:
            if cost.regenerated_rows > cost.bound:
                found.append(
                    f"{build.name}: an actor was lost ({cost.cause}) and {cost.regenerated_rows:.0f} rows "
                    f"with it, though it left undone or dropped {cost.bound}"
                )
    injected = sum(len(build.injections) for build in builds)
    if injected < faults:
        found.append(f"only {injected} of {faults} faults were injected")
    return found


def print_table(builds: Sequence[Ended], console: Console) -> None:
    """Each kind of fault, then each build, then what lost actors cost."""
    table = Table("fault", title="Faults")
    for name in ("injected", "rows lost", "rows twice", "recovery s, median", "worst"):
        table.add_column(name, justify="right")
    kinds = defaultdict[str, list[tuple[Ended, Injection]]](list)
    for build in builds:
        for injection in build.injections:
            kinds[injection.fault].append((build, injection))
    for kind, found in sorted(kinds.items()):
        struck = {build.name: build.rows for build, _ in found}.values()
        seconds = [s for _, injection in found if (s := _seconds(injection)) is not None]
        table.add_row(
            kind,
            str(len(found)),
            str(sum(rows.lost for rows in struck)),
            str(sum(rows.twice for rows in struck)),
            f"{median(seconds):.1f}" if seconds else "-",
            f"{max(seconds):.1f}" if seconds else "-",
        )
    all_of_them = str(sum(len(build.injections) for build in builds))
    lost, twice = (sum(getattr(b.rows, what) for b in builds) for what in ("lost", "twice"))
    table.add_section()
    table.add_row("all", all_of_them, str(lost), str(twice), "", "", style="bold")
    console.print(table)
    console.print(_build_table(builds))
    costs = [cost for build in builds for cost in build.costs]
    if costs:
        console.print(_cost_line(costs))


def _build_table(builds: Sequence[Ended]) -> Table:
    table = Table("build", title="Builds")
    for name in ("rows", "lost", "twice", "faults", "actors lost", "seconds"):
        table.add_column(name, justify="right")
    for build in builds:
        numbers = (build.rows.num_rows, build.rows.lost, build.rows.twice, len(build.injections))
        table.add_row(build.name, *(f"{n:,}" for n in (*numbers, len(build.costs))), f"{build.seconds:.0f}")
    return table


def _cost_line(costs: Sequence[Cost]) -> str:
    rows = [cost.regenerated_rows for cost in costs]
    bounds = [cost.bound for cost in costs]
    return (
        f"{len(costs)} actors lost; rows generated again per lost actor: median {median(rows):.0f}, most "
        f"{max(rows):.0f}. The bound is the rows that it left undone or was told to drop: median "
        f"{median(bounds):.0f}, most {max(bounds)}."
    )


def _seconds(injection: Injection) -> float | None:
    """Until it was over; None for what there is no recovery from, such as a clock that is wrong."""
    over = injection.recovered() if injection.recovered else None
    return None if over is None else max(0.0, over - injection.at)
