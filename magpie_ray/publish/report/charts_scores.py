"""The chart of a reward's values.

Pure.
"""

from magpie_ray.publish.histogram import quantile
from magpie_ray.publish.report.chart import HALF, INK, PLAIN, Chart, framed, quantitative
from magpie_ray.publish.report.facts import Facts
from magpie_ray.utils.text import percent

_BINS = 32


def rewards(facts: Facts, name: str) -> Chart | None:
    """How the values of a reward are spread. The first and the last bar hold all beyond them, too."""
    counts = facts.survey.rewards[name]
    if not counts:
        return None
    low, high = quantile(counts, 0.005), quantile(counts, 0.995)
    width = (high - low) / _BINS or 1.0
    sums, total = [0] * _BINS, sum(counts.values())
    for value, number in counts.items():
        sums[min(_BINS - 1, max(0, int((value - low) / width)))] += number
    values = [
        {
            "a": low + index * width,
            "b": low + (index + 1) * width,
            "share": round(number / total, 6),
            "tooltip": f"{low + index * width:.2f} to {low + (index + 1) * width:.2f}: {number:,} values, "
            f"{percent(number / total)}",
        }
        for index, number in enumerate(sums)
    ]
    x = quantitative("a", bin={"binned": True}, title="logit", axis={"tickCount": 6, "grid": False})
    y = quantitative("share", stack=None, title=None, axis={"tickCount": 3, "format": "~%"})
    bars = {
        "mark": {"type": "bar", "color": PLAIN, "binSpacing": 1},
        "encoding": {"x": x, "x2": {"field": "b"}, "y": y, "description": {"field": "tooltip"}},
    }
    median = {
        "data": {"values": [{"m": quantile(counts, 0.5)}]},
        "mark": {"type": "rule", "color": INK, "strokeDash": [3, 3]},
        "encoding": {"x": quantitative("m")},
    }
    spec = framed(values, width=HALF, height=160, layer=[bars, median])
    return Chart(title=f"Values of {name}; the median is {quantile(counts, 0.5):.2f}", spec=spec)
