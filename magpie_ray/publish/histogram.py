"""How often each value occurs: quantiles and the mean of values that are counted and not kept."""

from collections.abc import Mapping
from typing import TypeAlias, TypeVar

Histogram: TypeAlias = Mapping[int, int]
N = TypeVar("N", int, float)


def quantile(histogram: Mapping[N, int], part: float) -> N:
    """The smallest value such that a part (0..1) of all values are not larger. ValueError for no values."""
    need, seen = part * sum(histogram.values()), 0
    for value in sorted(histogram):
        seen += histogram[value]
        if seen >= need:
            return value
    raise ValueError("no values")


def mean(histogram: Mapping[N, int]) -> float:
    """The mean of all values; 0 for no values."""
    return sum(value * n for value, n in histogram.items()) / max(1, sum(histogram.values()))
