"""The charts of the work: rows and tokens over time, the lives of the actors.

Pure.
"""

from collections.abc import Sequence

from magpie_ray.publish.report.chart_parts import (
    BAD,
    BY_STEPS,
    HALF,
    NARROW,
    PLAIN,
    SOFT,
    WIDE,
    Chart,
    Spec,
    spec_of,
)
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.report.timeline import Placed, actors_up, timeline
from magpie_ray.utils.text import visible

# More lines than this are not read any more; the table and the engines' chart tell of all.
MAX_SLOTS = 24


def rows(facts: Facts) -> Chart | None:
    if not facts.commits:
        return None
    each, x = _time_axis(facts)
    rows, points = 0, [{"t": 0.0, "rows": 0}]
    for at, record in facts.commits:
        rows += record.rows
        points.append({"t": round(at / each, 4), "rows": rows})
    kept = points[:: max(1, len(points) // 400)]  # as many as a screen tells apart
    kept = kept if kept[-1] is points[-1] else [*kept, points[-1]]
    spec = spec_of(
        HALF,
        200,
        kept,
        mark={
            "type": "area",
            "interpolate": "step-after",
            "color": PLAIN,
            "opacity": 0.25,
            "line": {"color": PLAIN, "strokeWidth": 1.5, "opacity": 1},
        },
        encoding={
            "x": {"field": "t", **x},
            "y": {
                "field": "rows",
                "type": "quantitative",
                "title": "rows committed",
                "axis": {"tickCount": 4, "format": "~s"},
            },
        },
    )
    return Chart(title=f"Rows committed over time, {facts.tally.rows:,} in the end", spec=spec)


def rate(facts: Facts) -> Chart | None:
    if not facts.bins:
        return None
    each, x = _time_axis(facts)
    values = [
        {
            "a": b.begin / each,
            "b": b.end / each,
            "rate": round(b.tokens / (b.end - b.begin), 1),
            "told": f"{b.tokens / (b.end - b.begin):,.0f} tokens/s, {b.rows / (b.end - b.begin):,.1f} rows/s",
        }
        for b in facts.bins
    ]
    spec = spec_of(
        HALF,
        200,
        values,
        mark={"type": "bar", "color": PLAIN, "binSpacing": 1},
        encoding={
            "x": {"field": "a", **x, "bin": {"binned": True}},
            "x2": {"field": "b"},
            "y": {
                "field": "rate",
                "type": "quantitative",
                "stack": None,
                "title": "tokens/s committed",
                "axis": {"tickCount": 4, "format": "~s"},
            },
            "description": {"field": "told"},
        },
    )
    return Chart(title="Tokens per second over time", spec=spec)


def _lives(placed: Sequence[Placed], each: float) -> list[dict[str, object]]:
    """Each life's bars, while it started and while it worked, and a mark where it was lost or left."""
    many_runs = len({p.run for p in placed}) > 1
    values: list[dict[str, object]] = []
    for p in placed:
        life, ready = p.life, p.ready
        name = f"run {p.run}, actor {life.slot}" if many_runs else f"actor {life.slot}"
        base = {"slot": p.key, "name": name}
        where = f"{name} on {visible(life.node)}"
        up = p.ended if ready is None else ready
        values.append(
            base | {"a": p.placed / each, "b": up / each, "kind": "starting", "told": f"{where}: starting"}
        )
        if ready is not None:
            told = f"{where}: {life.rows:,} rows committed"
            values.append(base | {"a": ready / each, "b": p.ended / each, "kind": "working", "told": told})
        if life.end in ("lost", "left"):
            told = f"{where}: {life.end}. {visible(life.cause)}"
            values.append(base | {"a": p.ended / each, "kind": life.end, "told": told})
    return values


def actors(facts: Facts) -> Chart | None:
    placed, _ = timeline(facts, MAX_SLOTS)
    if not placed:
        return None
    each, x = _time_axis(facts)
    values = _lives(placed, each)
    order = sorted({(str(v["slot"]), str(v["name"])) for v in values})
    y = {
        "field": "name",
        "type": "nominal",
        "title": None,
        "sort": [name for _, name in order],
        "scale": {"paddingInner": 0.35, "paddingOuter": 0.2},
        "axis": {"labelLimit": 110},
    }
    bars = {
        "transform": [{"filter": "isValid(datum.b)"}],
        "mark": {"type": "bar", "cornerRadius": 2, "minBandSize": 4},
        "encoding": {
            "x": {"field": "a", **x},
            "x2": {"field": "b"},
            "color": {
                "field": "kind",
                "type": "nominal",
                "legend": None,
                "scale": {"domain": ["starting", "working"], "range": [SOFT, PLAIN]},
            },
        },
    }
    ends = {
        "transform": [{"filter": "datum.kind === 'lost' || datum.kind === 'left'"}],
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "stroke": "var(--card)"},
        "encoding": {
            "x": {"field": "a", **x},
            "shape": {
                "field": "kind",
                "legend": None,
                "scale": {"domain": ["lost", "left"], "range": ["cross", "triangle-right"]},
            },
            "color": {"value": BAD},
        },
    }

    def at(width: int) -> Spec:
        return (
            spec_of(
                width,
                {"step": 20 if len(order) > 12 else 26},
                values,
                layer=[bars, ends],
                encoding={"y": y, "description": {"field": "told"}},
            )
            | BY_STEPS
        )

    return Chart(title="When each actor was starting, working and lost", spec=at(WIDE), narrow=at(NARROW))


def engines(facts: Facts) -> Chart | None:
    points = actors_up(facts)
    if len(points) < 8:  # the timeline shows as much
        return None
    each, x = _time_axis(facts)
    step = max(1, len(points) // 800)
    values = [{"t": at / each, "up": up} for at, up in [*points[::step], points[-1]]]
    mark = {"type": "area", "interpolate": "step-after", "color": PLAIN, "opacity": 0.35}
    encoding = {
        "x": {"field": "t", **x},
        "y": {
            "field": "up",
            "type": "quantitative",
            "stack": None,
            "title": "engines up",
            "axis": {"tickCount": 4, "format": "d"},
        },
    }
    specs = [spec_of(width, 130, values, mark=mark, encoding=encoding) for width in (WIDE, NARROW)]
    return Chart(title="How many engines were up over time", spec=specs[0], narrow=specs[1])


def _unit(seconds: float) -> tuple[float, str]:
    """In what a time is told, and how many seconds that has."""
    if seconds < 300:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")


def _time_axis(facts: Facts) -> tuple[float, Spec]:
    """Seconds a unit, and the x channel of times of work."""
    each, name = _unit(facts.seconds)
    title = f"{name} of work" + (f", {len(facts.runs)} runs" if len(facts.runs) > 1 else "")
    scale = {"domain": [0, max(facts.seconds, 1e-9) / each], "nice": False}
    return each, {
        "type": "quantitative",
        "title": title,
        "scale": scale,
        "axis": {"tickCount": 6, "grid": False},
    }
