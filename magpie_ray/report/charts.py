"""The charts of a report as Vega-Lite specifications.

Pure. Colours and inks are the page's CSS variables. A chart that is as wide as the page comes twice, the
second time for narrow screens, where letters would shrink with the drawing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from magpie_ray.report.facts import Facts, actors_up, timeline, word_tree
from magpie_ray.safe_text import visible
from magpie_ray.survey import Histogram, quantile

Spec: TypeAlias = dict[str, Any]

_WIDE, _HALF, _NARROW = 960, 440, 350
MAX_SLOTS = 24
_MAX_TURNS = 4
_LENGTH_BINS = 24
_LABEL_CHARACTERS = 22

_USER, _ASSISTANT, _PLAIN, _BAD, _SOFT = (
    f"var(--{name})" for name in ("user", "assistant", "plain", "bad", "soft")
)
_BRANCH_COLOURS = 6

_CONFIG: Spec = {
    "background": None,
    "view": {"stroke": None},
    "font": "sans-serif",
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 6,
        "gridColor": "var(--grid)",
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
    },
    "header": {"labelColor": "var(--muted)", "labelFontSize": 11, "titleColor": "var(--muted)"},
    "bar": {"cornerRadiusEnd": 2},
    "text": {"color": "var(--ink)", "fontSize": 11},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One drawing: what it shows in words, and how. `narrow`: the same for narrow screens."""

    title: str
    spec: Spec
    narrow: Spec | None = None


def charts_of(facts: Facts) -> dict[str, Chart]:
    """All charts that there is something to show in, by name."""
    made = {
        "rows": _rows(facts),
        "rate": _rate(facts),
        "actors": _actors(facts),
        "engines": _engines(facts),
        "user-tokens": _lengths(facts, "user"),
        "assistant-tokens": _lengths(facts, "assistant"),
        "reasons": _reasons(facts),
        "prompts": _prompts(facts),
        "words": _words(facts),
    }
    return {name: chart for name, chart in made.items() if chart}


def _spec(width: int, height: int | Spec, values: Sequence[Mapping[str, object]], **parts: Any) -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 2,
        "data": {"values": list(values)},
        "config": _CONFIG,
        **parts,
    }


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


def _rows(facts: Facts) -> Chart | None:
    if not facts.commits:
        return None
    each, x = _time_axis(facts)
    rows, points = 0, [{"t": 0.0, "rows": 0}]
    for at, record in facts.commits:
        rows += record.rows
        points.append({"t": round(at / each, 4), "rows": rows})
    kept = points[:: max(1, len(points) // 400)]  # as many as a screen tells apart
    kept = kept if kept[-1] is points[-1] else [*kept, points[-1]]
    spec = _spec(
        _HALF,
        200,
        kept,
        mark={
            "type": "area",
            "interpolate": "step-after",
            "color": _PLAIN,
            "opacity": 0.25,
            "line": {"color": _PLAIN, "strokeWidth": 1.5, "opacity": 1},
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


def _rate(facts: Facts) -> Chart | None:
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
    spec = _spec(
        _HALF,
        200,
        values,
        mark={"type": "bar", "color": _PLAIN, "binSpacing": 1},
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


def _actors(facts: Facts) -> Chart | None:
    placed, _ = timeline(facts, MAX_SLOTS)
    if not placed:
        return None
    each, x = _time_axis(facts)
    many_runs = len({p.run for p in placed}) > 1
    values = []
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
                "scale": {"domain": ["starting", "working"], "range": [_SOFT, _PLAIN]},
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
            "color": {"value": _BAD},
        },
    }

    def at(width: int) -> Spec:
        return _spec(
            width,
            {"step": 20 if len(order) > 12 else 26},
            values,
            layer=[bars, ends],
            encoding={"y": y, "description": {"field": "told"}},
        ) | {"autosize": {"type": "fit-x", "contains": "padding"}}

    return Chart(title="When each actor was starting, working and lost", spec=at(_WIDE), narrow=at(_NARROW))


def _engines(facts: Facts) -> Chart | None:
    points = actors_up(facts)
    if len(points) < 8:  # the timeline shows as much
        return None
    each, x = _time_axis(facts)
    step = max(1, len(points) // 800)
    values = [{"t": at / each, "up": up} for at, up in [*points[::step], points[-1]]]
    mark = {"type": "area", "interpolate": "step-after", "color": _PLAIN, "opacity": 0.35}
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
    specs = [_spec(width, 130, values, mark=mark, encoding=encoding) for width in (_WIDE, _NARROW)]
    return Chart(title="How many engines were up over time", spec=specs[0], narrow=specs[1])


def _lengths(facts: Facts, role: str) -> Chart | None:
    """How long the role's messages are, a panel a turn, all on one scale."""
    found = {key: counts for key, counts in facts.survey.tokens.items() if key[0] == role}
    if not found:
        return None
    turns = sorted(found)[:_MAX_TURNS]
    top = max(quantile(found[key], 0.99) for key in turns)
    width = max(1, -(-top // _LENGTH_BINS))
    end = width * _LENGTH_BINS
    panels = []
    for key in turns:
        counts = found[key]
        panels.append(
            {
                "data": {"values": _binned(counts, width, end)},
                "width": _HALF - 60,
                "height": 120 if len(turns) == 1 else 76,
                "layer": [
                    {
                        "mark": {
                            "type": "bar",
                            "color": _USER if role == "user" else _ASSISTANT,
                            "binSpacing": 1,
                        },
                        "encoding": {
                            "x": {
                                "field": "a",
                                "type": "quantitative",
                                "bin": {"binned": True},
                                "scale": {"domain": [0, end]},
                                "title": "tokens" if key == turns[-1] else None,
                                "axis": {"tickCount": 6, "grid": False, "labels": key == turns[-1]},
                            },
                            "x2": {"field": "b"},
                            "y": {
                                "field": "share",
                                "type": "quantitative",
                                "stack": None,
                                "title": f"turn {key[1]}" if len(turns) > 1 else "messages",
                                "axis": {"tickCount": 2, "format": "~%"},
                            },
                            "description": {"field": "told"},
                        },
                    },
                    {
                        "data": {"values": [{"m": quantile(counts, 0.5)}]},
                        "mark": {"type": "rule", "color": "var(--ink)", "strokeDash": [3, 3]},
                        "encoding": {"x": {"field": "m", "type": "quantitative"}},
                    },
                ],
            }
        )
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "padding": 2,
        "config": _CONFIG,
        "spacing": 6,
        "vconcat": panels,
    }
    medians = ", ".join(f"turn {turn}: {quantile(found[(r, turn)], 0.5)}" for r, turn in turns)
    return Chart(title=f"Lengths of {role} messages in tokens; medians {medians}", spec=spec)


def _binned(counts: Histogram, width: int, end: int) -> list[dict[str, object]]:
    total, sums = sum(counts.values()), dict[int, int]()
    for value, number in counts.items():
        begin = min(value // width * width, end - width)
        sums[begin] = sums.get(begin, 0) + number
    return [
        {
            "a": begin,
            "b": begin + width,
            "share": round(number / total, 6),
            "told": f"{begin} to {begin + width - 1}{' or more' if begin == end - width else ''} tokens: "
            f"{number:,} messages, {number / total:.1%}",
        }
        for begin, number in sorted(sums.items())
    ]


def _reasons(facts: Facts) -> Chart | None:
    rejected = sorted(facts.tally.rejected.items(), key=lambda item: -item[1])
    if not rejected:
        return None
    attempts = facts.tally.attempts
    values = [
        {"reason": visible(reason), "n": n, "label": f"{n:,} ({n / attempts:.1%})"} for reason, n in rejected
    ]
    return Chart(title="Rejected attempts by reason", spec=_bars(values, "reason", "n", colour=_BAD))


def _bars(values: Sequence[Mapping[str, object]], name: str, number: str, *, colour: str) -> Spec:
    most = max(float(str(value[number])) for value in values)
    y = {
        "field": name,
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelColor": "var(--ink)", "labelLimit": 150},
        "scale": {"paddingInner": 0.3},
    }
    x = {
        "field": number,
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [0, most * 1.35], "nice": False},
    }
    return _spec(
        _HALF,
        {"step": 24},
        values,
        encoding={"y": y, "x": x},
        layer=[
            {"mark": {"type": "bar", "color": colour}, "encoding": {"description": {"field": "label"}}},
            {
                "mark": {"type": "text", "align": "left", "dx": 5, "color": "var(--muted)"},
                "encoding": {"text": {"field": "label"}},
            },
        ],
    ) | {"autosize": {"type": "fit-x", "contains": "padding"}}


def _prompts(facts: Facts) -> Chart | None:
    shares = facts.prompts[:40]
    if not shares or not facts.survey.rows:
        return None
    values = [
        {
            "name": visible(share.name)[:_LABEL_CHARACTERS],
            "share": round(share.share, 6),
            "weight": round(share.weight, 6),
            "told": f"{visible(share.name)}: {share.share:.1%} of rows, weight {share.weight:.1%}",
        }
        for share in shares
    ]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelColor": "var(--ink)", "labelLimit": 150},
        "scale": {"paddingInner": 0.4},
    }
    x = {
        "type": "quantitative",
        "title": "share of rows; the line is the weight",
        "axis": {"format": "~%", "tickCount": 5},
    }
    layer = [
        {
            "mark": {"type": "bar", "color": _PLAIN},
            "encoding": {"x": {"field": "share", **x}, "description": {"field": "told"}},
        },
        {
            "mark": {"type": "tick", "color": "var(--ink)", "thickness": 2, "height": 18},
            "encoding": {"x": {"field": "weight", **x}},
        },
    ]
    specs = [
        _spec(width, {"step": 24}, values, encoding={"y": y}, layer=layer)
        | {"autosize": {"type": "fit-x", "contains": "padding"}}
        for width in (_WIDE, _NARROW)
    ]
    return Chart(title="System prompts: rows against weights", spec=specs[0], narrow=specs[1])


def _words(facts: Facts) -> Chart | None:
    """Two columns of boxes as high as their words are frequent, the second words beside their first."""
    rows = facts.survey.rows
    tree = [branch for branch in word_tree(facts.survey, first=14, second=6) if branch.word]
    if not tree:
        return None

    def at(width: int, height: int) -> Spec:
        boxes, y = list[dict[str, object]](), 0.0
        shown = sum(branch.rows for branch in tree)
        for index, branch in enumerate(tree):
            colour = f"var(--branch{index % _BRANCH_COLOURS})"
            boxes.append(_box(0, y, branch.rows, branch.word, rows, colour, shown, height))
            after = y
            for word, number in branch.then:
                if word:
                    boxes.append(
                        _box(1, after, number, word, rows, colour, shown, height, before=branch.word)
                    )
                after += number
            y += branch.rows
        x = {"type": "quantitative", "axis": None, "scale": {"domain": [0, 2], "nice": False}}
        down = {"type": "quantitative", "axis": None, "scale": {"domain": [shown, 0], "nice": False}}
        return _spec(
            width,
            height,
            boxes,
            layer=[
                {
                    "mark": {"type": "rect", "cornerRadius": 2, "stroke": "var(--card)", "strokeWidth": 1},
                    "encoding": {
                        "x": {"field": "x", **x},
                        "x2": {"field": "x2"},
                        "y": {"field": "y", **down},
                        "y2": {"field": "y2"},
                        "fill": {"field": "colour", "type": "nominal", "scale": None},
                        "opacity": {"field": "opacity", "type": "quantitative", "scale": None},
                        "description": {"field": "told"},
                    },
                },
                {
                    "transform": [{"filter": "datum.label !== ''"}],
                    "mark": {
                        "type": "text",
                        "align": "left",
                        "dx": 8,
                        "baseline": "middle",
                        "limit": width / 2 - 14,
                    },
                    "encoding": {
                        "x": {"field": "x", **x},
                        "y": {"field": "middle", **down},
                        "text": {"field": "label"},
                    },
                },
            ],
        )

    return Chart(
        title="The most frequent first words of instructions, and the words that follow them",
        spec=at(_WIDE, 460),
        narrow=at(_NARROW, 420),
    )


def _box(
    column: int,
    y: float,
    number: int,
    word: str,
    rows: int,
    colour: str,
    shown: int,
    height: int,
    *,
    before: str = "",
) -> dict[str, object]:
    named = visible(f"{before} {word}".strip())
    fits = number / shown * height >= 14
    return {
        "x": column,
        "x2": column + 1,
        "y": y,
        "y2": y + number,
        "middle": y + number / 2,
        "colour": colour,
        "opacity": 0.55 if column else 0.9,
        "label": f"{visible(word)}  {number / rows:.1%}" if fits else "",
        "told": f"{named}: {number:,} rows, {number / rows:.1%}",
    }
