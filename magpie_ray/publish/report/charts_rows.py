"""The charts of the rows: lengths, reasons of rejection, system prompts, first words.

Pure.
"""

from collections.abc import Iterator, Sequence

from magpie_ray.publish.first_words import Branch, word_tree
from magpie_ray.publish.histogram import Histogram, quantile
from magpie_ray.publish.report.chart import (
    ASSISTANT,
    BAD,
    HALF,
    INK,
    MUTED,
    NARROW,
    PLAIN,
    USER,
    WIDE,
    Chart,
    Spec,
    frame,
    framed,
    name_axis,
    nominal,
    quantitative,
)
from magpie_ray.publish.report.facts import Facts
from magpie_ray.types import Role
from magpie_ray.utils.text import percent, visible

_MAX_TURNS = 4
_MAX_PROMPTS = 40
_LENGTH_BINS = 24
_LABEL_CHARACTERS = 22
_LABEL_PIXELS = 14
_BRANCH_COLOURS = 6
_OTHER = "(other)"


def lengths(facts: Facts, role: Role) -> Chart | None:
    """How long the role's messages are, in tokens: a panel for each turn, all on one scale."""
    turns = sorted(turn for of, turn in facts.survey.tokens if of == role)[:_MAX_TURNS]
    if not turns:
        return None
    each = "answer" if facts.build.answers > 1 else "turn"
    by_turn = {turn: facts.survey.tokens[role, turn] for turn in turns}
    longest = max(quantile(counts, 0.99) for counts in by_turn.values())
    width = max(1, -(-longest // _LENGTH_BINS))
    end = width * _LENGTH_BINS
    panels = []
    for turn, counts in by_turn.items():
        is_last = turn == turns[-1]
        x = quantitative(
            "a",
            bin={"binned": True},
            scale={"domain": [0, end]},
            title="tokens" if is_last else None,
            axis={"tickCount": 6, "grid": False, "labels": is_last},
        )
        title = f"{each} {turn}" if len(by_turn) > 1 else "messages"
        y = quantitative("share", stack=None, title=title, axis={"tickCount": 2, "format": "~%"})
        colour = USER if role == "user" else ASSISTANT
        bars = {
            "mark": {"type": "bar", "color": colour, "binSpacing": 1},
            "encoding": {"x": x, "x2": {"field": "b"}, "y": y, "description": {"field": "tooltip"}},
        }
        median = {
            "data": {"values": [{"m": quantile(counts, 0.5)}]},
            "mark": {"type": "rule", "color": INK, "strokeDash": [3, 3]},
            "encoding": {"x": quantitative("m")},
        }
        panels.append(
            {
                "data": {"values": _binned(counts, width, end)},
                "width": HALF - 60,
                "height": 120 if len(by_turn) == 1 else 76,
                "layer": [bars, median],
            }
        )
    medians = ", ".join(f"{each} {turn}: {quantile(counts, 0.5)}" for turn, counts in by_turn.items())
    title = f"Lengths of {role} messages in tokens; medians {medians}"
    return Chart(title=title, spec=frame(spacing=6, vconcat=panels))


def _binned(counts: Histogram, width: int, end: int) -> list[dict[str, object]]:
    """Bins of `width` tokens up to `end`; the last one holds all longer messages, too."""
    total, sums = sum(counts.values()), dict[int, int]()
    for value, number in counts.items():
        begin = min(value // width * width, end - width)
        sums[begin] = sums.get(begin, 0) + number
    return [
        {
            "a": begin,
            "b": begin + width,
            "share": round(number / total, 6),
            "tooltip": f"{begin} to {begin + width - 1}{' or more' if begin == end - width else ''} tokens: "
            f"{number:,} messages, {percent(number / total)}",
        }
        for begin, number in sorted(sums.items())
    ]


def reasons(facts: Facts) -> Chart | None:
    """Rejected attempts, or rows without a score, by reason, the most frequent first."""
    rejected = sorted(facts.tally.rejected.items(), key=lambda item: -item[1])
    if not rejected:
        return None
    attempts = facts.tally.attempts
    values = [
        {"reason": visible(reason), "n": n, "label": f"{n:,} ({percent(n / attempts)})"}
        for reason, n in rejected
    ]
    # Room for the label of the longest bar.
    scale = {"domain": [0, rejected[0][1] * 1.35], "nice": False}
    label = {"field": "label"}
    bars = {"mark": {"type": "bar", "color": BAD}, "encoding": {"description": label}}
    texts = {
        "mark": {"type": "text", "align": "left", "dx": 5, "color": MUTED},
        "encoding": {"text": label},
    }
    spec = framed(
        values,
        width=HALF,
        height={"step": 24},
        encoding={"y": name_axis("reason", gap=0.3), "x": quantitative("n", axis=None, scale=scale)},
        layer=[bars, texts],
    )
    what = "Rows without a score" if facts.build.job == "score" else "Rejected attempts"
    return Chart(title=f"{what} by reason", spec=spec)


def prompts(facts: Facts) -> Chart | None:
    """Each system prompt's share of the rows, against its weight."""
    shares = facts.prompts[:_MAX_PROMPTS]
    if not shares or not facts.survey.rows:
        return None
    values = [
        {
            "name": visible(share.name)[:_LABEL_CHARACTERS],
            "share": round(share.share, 6),
            "weight": round(share.weight, 6),
            "tooltip": f"{visible(share.name)}: {percent(share.share)} of rows, "
            f"weight {percent(share.weight)}",
        }
        for share in shares
    ]
    axis = {"title": "share of rows; the line is the weight", "axis": {"format": "~%", "tickCount": 5}}
    bars = {
        "mark": {"type": "bar", "color": PLAIN},
        "encoding": {"x": quantitative("share", **axis), "description": {"field": "tooltip"}},
    }
    weights = {
        "mark": {"type": "tick", "color": INK, "thickness": 2, "height": 18},
        "encoding": {"x": quantitative("weight", **axis)},
    }
    encoding = {"y": name_axis("name", gap=0.4)}
    return Chart.of_page_width(
        "System prompts: rows against weights",
        lambda width: framed(
            values, width=width, height={"step": 24}, encoding=encoding, layer=[bars, weights]
        ),
    )


def words(facts: Facts) -> Chart | None:
    """Two columns of boxes as high as their words are frequent, the second words beside their first.

    Words whose box would be too low for a label are gathered in one box, "other".
    """
    tree = [branch for branch in word_tree(facts.survey.first_words, first=14, second=6) if branch.word]
    if not tree:
        return None
    return Chart(
        title="The most frequent first words of instructions, and the words that follow them",
        spec=_boxes(tree, facts.survey.rows, width=WIDE, height=460),
        narrow=_boxes(tree, facts.survey.rows, width=NARROW, height=420),
    )


def _gathered(words: Sequence[tuple[str, int]], total: int, least: float) -> list[tuple[str, int]]:
    """The words with `least` rows or more; then "" with all other rows of the total, if there are any."""
    large = [(word, rows) for word, rows in words if word and rows >= least]
    rest = total - sum(rows for _, rows in large)
    return [*large, ("", rest)] if rest else large


def _boxes(tree: Sequence[Branch], rows: int, *, width: int, height: int) -> Spec:
    shown = sum(branch.rows for branch in tree)

    def box(words: Sequence[str], y: int, number: int, colour: int) -> dict[str, object]:
        """The box of the last of the words, `number` rows high from `y` on."""
        column = len(words) - 1
        fits = number / shown * height >= _LABEL_PIXELS
        return {
            "x": column,
            "x2": column + 1,
            "y": y,
            "y2": y + number,
            "middle": y + number / 2,
            "colour": f"var(--branch{colour})",
            "opacity": 0.55 if column else 0.9,
            "label": f"{visible(words[-1])}  {percent(number / rows)}" if fits else "",
            "tooltip": f"{visible(' '.join(words))}: {number:,} rows, {percent(number / rows)}",
        }

    def boxes() -> Iterator[dict[str, object]]:
        y, then = 0, {branch.word: branch.then for branch in tree}
        least = _LABEL_PIXELS * shown / height
        for index, (first, rows_of_first) in enumerate(
            _gathered([(branch.word, branch.rows) for branch in tree], shown, least)
        ):
            colour = index % _BRANCH_COLOURS
            yield box([first or _OTHER], y, rows_of_first, colour)
            second = y
            for word, number in _gathered(then[first], rows_of_first, least) if first else ():
                yield box([first, word or _OTHER], second, number, colour)
                second += number
            y += rows_of_first

    across = {"axis": None, "scale": {"domain": [0, 2], "nice": False}}
    down = {"axis": None, "scale": {"domain": [shown, 0], "nice": False}}
    rectangles = {
        "mark": {"type": "rect", "cornerRadius": 2, "stroke": "var(--card)", "strokeWidth": 1},
        "encoding": {
            "x": quantitative("x", **across),
            "x2": {"field": "x2"},
            "y": quantitative("y", **down),
            "y2": {"field": "y2"},
            "fill": nominal("colour", scale=None),
            "opacity": quantitative("opacity", scale=None),
            "description": {"field": "tooltip"},
        },
    }
    limit = width / 2 - 14
    labels = {
        "transform": [{"filter": "datum.label !== ''"}],
        "mark": {"type": "text", "align": "left", "dx": 8, "baseline": "middle", "limit": limit},
        "encoding": {
            "x": quantitative("x", **across),
            "y": quantitative("middle", **down),
            "text": {"field": "label"},
        },
    }
    return framed(list(boxes()), width=width, height=height, layer=[rectangles, labels])
