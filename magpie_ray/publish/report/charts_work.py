"""The charts of the work: rows and tokens over time, the lives of the actors.

Pure. Times in charts are times of work (facts.py), in seconds, minutes or hours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from math import ceil
from typing import TypeVar

from magpie_ray.counters import work_of
from magpie_ray.dataset.actor_history import ActorLife
from magpie_ray.publish.report.chart import BAD, HALF, PLAIN, SOFT, Chart, Spec, framed, nominal, quantitative
from magpie_ray.publish.report.facts import Facts
from magpie_ray.utils.text import visible

# Nobody reads more lines than these. The table of runs and the chart of engines cover all actors.
MAX_SLOTS = 24
# More points than a screen tells apart.
_MAX_ROWS_POINTS, _MAX_ENGINES_POINTS = 400, 800

PointT = TypeVar("PointT")


def rows(facts: Facts) -> Chart | None:
    """Rows committed so far, over time."""
    if not facts.commits:
        return None
    unit, axis = _time_axis(facts)
    totals = accumulate(record.rows for _, record in facts.commits)
    points = [
        {"t": 0.0, "rows": 0},
        *({"t": round(at / unit, 4), "rows": n} for (at, _), n in zip(facts.commits, totals, strict=True)),
    ]
    line = {"color": PLAIN, "strokeWidth": 1.5, "opacity": 1}
    spec = framed(
        _thinned(points, _MAX_ROWS_POINTS),
        width=HALF,
        height=200,
        mark={"type": "area", "interpolate": "step-after", "color": PLAIN, "opacity": 0.25, "line": line},
        encoding={
            "x": quantitative("t", **axis),
            "y": quantitative("rows", title="rows committed", axis={"tickCount": 4, "format": "~s"}),
        },
    )
    return Chart(title=f"Rows committed over time, {facts.tally.rows:,} in the end", spec=spec)


def rate(facts: Facts) -> Chart | None:
    """Tokens generated per second, over time; of scores the requests, which count as one token each."""
    if not facts.bins:
        return None
    what = work_of(facts.build.job)
    unit, axis = _time_axis(facts)
    values = [
        {
            "a": span.begin / unit,
            "b": span.end / unit,
            "rate": round(span.tokens / span.seconds, 1),
            "tooltip": f"{span.tokens / span.seconds:,.0f} {what}/s",
        }
        for span in facts.bins
    ]
    y_axis = {"tickCount": 4, "format": "~s"}
    spec = framed(
        values,
        width=HALF,
        height=200,
        mark={"type": "bar", "color": PLAIN, "binSpacing": 1},
        encoding={
            "x": quantitative("a", **axis, bin={"binned": True}),
            "x2": {"field": "b"},
            "y": quantitative("rate", stack=None, title=f"{what}/s", axis=y_axis),
            "description": {"field": "tooltip"},
        },
    )
    return Chart(title=f"{what.capitalize()} per second over time", spec=spec)


def actors(facts: Facts) -> Chart | None:
    """A line for each slot: bars while an actor started and worked, a mark where it was lost or left."""
    lives, _ = timeline(facts, MAX_SLOTS)
    if not lives:
        return None
    unit, axis = _time_axis(facts)
    many_runs = len({life.run for life in lives}) > 1
    names = {
        life.key: f"run {life.run}, actor {life.life.slot}" if many_runs else f"actor {life.life.slot}"
        for life in lives
    }
    values = [value for life in lives for value in _marks(life, names[life.key], unit)]
    y = nominal(
        "name",
        title=None,
        sort=list(names.values()),
        scale={"paddingInner": 0.35, "paddingOuter": 0.2},
        axis={"labelLimit": 110},
    )
    bars = {
        "transform": [{"filter": "isValid(datum.b)"}],
        "mark": {"type": "bar", "cornerRadius": 2, "minBandSize": 4},
        "encoding": {
            "x": quantitative("a", **axis),
            "x2": {"field": "b"},
            "color": nominal(
                "kind", legend=None, scale={"domain": ["starting", "working"], "range": [SOFT, PLAIN]}
            ),
        },
    }
    shapes = {"domain": ["lost", "left"], "range": ["cross", "triangle-right"]}
    ends = {
        "transform": [{"filter": "!isValid(datum.b)"}],
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "stroke": "var(--card)"},
        "encoding": {
            "x": quantitative("a", **axis),
            "shape": {"field": "kind", "legend": None, "scale": shapes},
            "color": {"value": BAD},
        },
    }

    def spec_at(width: int) -> Spec:
        return framed(
            values,
            width=width,
            height={"step": 20 if len(names) > 12 else 26},
            layer=[bars, ends],
            encoding={"y": y, "description": {"field": "tooltip"}},
        )

    return Chart.of_page_width("When each actor was starting, working, lost or left", spec_at)


def engines(facts: Facts) -> Chart | None:
    """The number of engines that were up, over time; None where the lives of the actors show as much."""
    points = engines_up(facts)
    if len(points) < 8:
        return None
    unit, axis = _time_axis(facts)
    values = [{"t": at / unit, "up": up} for at, up in _thinned(points, _MAX_ENGINES_POINTS)]
    mark = {"type": "area", "interpolate": "step-after", "color": PLAIN, "opacity": 0.35}
    y = quantitative("up", stack=None, title="engines up", axis={"tickCount": 4, "format": "d"})
    encoding = {"x": quantitative("t", **axis), "y": y}
    return Chart.of_page_width(
        "How many engines were up over time",
        lambda width: framed(values, width=width, height=130, mark=mark, encoding=encoding),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedLife:
    """The life of an actor with a node. placed, ready, ended: times of work. A live actor ends now."""

    run: int
    life: ActorLife
    placed: float
    ready: float | None
    ended: float

    @property
    def key(self) -> tuple[int, int]:
        """Run and slot."""
        return self.run, self.life.slot


def timeline(facts: Facts, most: int) -> tuple[Sequence[PlacedLife], int]:
    """The lives of at most `most` slots, and the number of all slots. Slots with losses are kept first."""
    slots = dict[tuple[int, int], list[PlacedLife]]()
    for life in _placed_lives(facts):
        slots.setdefault(life.key, []).append(life)
    kept = sorted(slots)
    if len(kept) > most:
        lossy = sorted(kept, key=lambda slot: -sum(life.life.end == "lost" for life in slots[slot]))
        lossy = lossy[: most // 2]
        others = [slot for slot in kept if slot not in set(lossy)]
        step = ceil(len(others) / (most - len(lossy)))
        kept = sorted([*lossy, *others[::step]])
    return [life for slot in kept for life in slots[slot]], len(slots)


def engines_up(facts: Facts) -> Sequence[tuple[float, int]]:
    """(time of work, number of engines that are up from then on), in order."""
    spans = [(life.ready, life.ended) for life in _placed_lives(facts) if life.ready is not None]
    changes = sorted(chain.from_iterable(((ready, 1), (ended, -1)) for ready, ended in spans))
    up = accumulate(change for _, change in changes)
    return [(0.0, 0), *((at, number) for (at, _), number in zip(changes, up, strict=True))]


def _placed_lives(facts: Facts) -> Iterator[PlacedLife]:
    for stretch in facts.stretches:
        history = facts.histories.get(stretch.run.number)
        for life in history.lives if history else ():
            if history and life.placed is not None:
                yield PlacedLife(
                    run=stretch.run.number,
                    life=life,
                    placed=stretch.begin + life.placed,
                    ready=None if life.ready is None else stretch.begin + life.ready,
                    ended=stretch.begin + (history.seconds if life.ended is None else life.ended),
                )


def _marks(placed: PlacedLife, name: str, unit: float) -> Iterator[dict[str, object]]:
    """The bars and the mark of one life. `unit`: the seconds in a unit of the axis."""
    where = f"{name} on {visible(placed.life.node)}"

    def value(kind: str, tooltip: str, begin: float, end: float | None = None) -> dict[str, object]:
        bar = {} if end is None else {"b": end / unit}
        return {"name": name, "kind": kind, "tooltip": f"{where}: {tooltip}", "a": begin / unit, **bar}

    yield value("starting", "starting", placed.placed, placed.ended if placed.ready is None else placed.ready)
    if placed.ready is not None:
        yield value("working", f"{placed.life.rows:,} rows committed", placed.ready, placed.ended)
    if placed.life.end in ("lost", "left"):
        yield value(placed.life.end, f"{placed.life.end}. {visible(placed.life.cause)}", placed.ended)


def _thinned(points: Sequence[PointT], most: int) -> list[PointT]:
    """About `most` of the points, evenly spread; the last one is kept."""
    kept = list(points[:: max(1, len(points) // most)])
    return kept if kept[-1] is points[-1] else [*kept, points[-1]]


def _time_axis(facts: Facts) -> tuple[float, Spec]:
    """The seconds in a unit of the axis, and the x channel of times of work but for its field."""
    unit, name = 3600.0, "hours"
    if facts.seconds < 3 * 3600:
        unit, name = (1.0, "seconds") if facts.seconds < 300 else (60.0, "minutes")
    return unit, {
        "title": f"{name} of work" + (f", {len(facts.runs)} runs" if len(facts.runs) > 1 else ""),
        "scale": {"domain": [0, max(facts.seconds, 1e-9) / unit], "nice": False},
        "axis": {"tickCount": 6, "grid": False},
    }
