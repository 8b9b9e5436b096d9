"""Counts of values stand for the values."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.publish.histogram import mean, quantile


@given(st.lists(st.integers(0, 20), min_size=1))
def test_quantiles_and_means(values: list[int]) -> None:
    histogram = Counter(values)
    assert mean(histogram) == pytest.approx(sum(values) / len(values))
    assert quantile(histogram, 0.0) == min(values)
    assert quantile(histogram, 1.0) == max(values)
    assert quantile(histogram, 0.5) == sorted(values)[(len(values) + 1) // 2 - 1]
