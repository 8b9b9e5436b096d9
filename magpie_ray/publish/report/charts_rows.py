"""The charts of the rows: lengths, reasons, system prompts, first words.

Pure.
"""

from collections.abc import Mapping, Sequence

from magpie_ray.publish.report.chart_parts import (
    ASSISTANT,
    BAD,
    BY_STEPS,
    CONFIG,
    HALF,
    NARROW,
    PLAIN,
    SCHEMA,
    USER,
    WIDE,
    Chart,
    Spec,
    spec_of,
)
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.report.rows import word_tree
from magpie_ray.publish.survey import Histogram, quantile
from magpie_ray.utils.text import percent, visible

_MAX_TURNS = 4
_MAX_PROMPTS = 40
_LENGTH_BINS = 24
_LABEL_CHARACTERS = 22
_BRANCH_COLOURS = 6


def lengths(facts: Facts, role: str) -> Chart | None:
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
                "width": HALF - 60,
                "height": 120 if len(turns) == 1 else 76,
                "layer": [
                    {
                        "mark": {
                            "type": "bar",
                            "color": USER if role == "user" else ASSISTANT,
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
        "$schema": SCHEMA,
        "padding": 2,
        "config": CONFIG,
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
            f"{number:,} messages, {percent(number / total)}",
        }
        for begin, number in sorted(sums.items())
    ]


def reasons(facts: Facts) -> Chart | None:
    rejected = sorted(facts.tally.rejected.items(), key=lambda item: -item[1])
    if not rejected:
        return None
    attempts = facts.tally.attempts
    values = [
        {"reason": visible(reason), "n": n, "label": f"{n:,} ({percent(n / attempts)})"}
        for reason, n in rejected
    ]
    return Chart(title="Rejected attempts by reason", spec=_bars(values, "reason", "n", colour=BAD))


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
    return (
        spec_of(
            HALF,
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
        )
        | BY_STEPS
    )


def prompts(facts: Facts) -> Chart | None:
    shares = facts.prompts[:_MAX_PROMPTS]
    if not shares or not facts.survey.rows:
        return None
    values = [
        {
            "name": visible(share.name)[:_LABEL_CHARACTERS],
            "share": round(share.share, 6),
            "weight": round(share.weight, 6),
            "told": f"{visible(share.name)}: {percent(share.share)} of rows, weight {percent(share.weight)}",
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
            "mark": {"type": "bar", "color": PLAIN},
            "encoding": {"x": {"field": "share", **x}, "description": {"field": "told"}},
        },
        {
            "mark": {"type": "tick", "color": "var(--ink)", "thickness": 2, "height": 18},
            "encoding": {"x": {"field": "weight", **x}},
        },
    ]
    specs = [
        spec_of(width, {"step": 24}, values, encoding={"y": y}, layer=layer) | BY_STEPS
        for width in (WIDE, NARROW)
    ]
    return Chart(title="System prompts: rows against weights", spec=specs[0], narrow=specs[1])


def words(facts: Facts) -> Chart | None:
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
        return spec_of(
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
        spec=at(WIDE, 460),
        narrow=at(NARROW, 420),
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
        "label": f"{visible(word)}  {percent(number / rows)}" if fits else "",
        "told": f"{named}: {number:,} rows, {percent(number / rows)}",
    }
