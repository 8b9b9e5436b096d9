"""Sizes and spans of time as people read them."""

import pytest

from magpie_ray.utils.text import bytes_text, clock_text, span_text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (span_text(59.6), "60 s"),
        (span_text(119), "119 s"),
        (span_text(600), "10 min"),
        (span_text(86_400), "24.0 h"),
        (span_text(259_200), "3.0 days"),
        (clock_text(0.4), "0:00"),
        (clock_text(59.9), "0:59"),
        (clock_text(3661), "1:01:01"),
        (clock_text(10**6), "277:46:40"),
        (bytes_text(0), "0 bytes"),
        (bytes_text(999), "999 bytes"),
        (bytes_text(216_400), "216 kB"),
        (bytes_text(1_234_567), "1.23 MB"),
        (bytes_text(999_999), "1 MB"),
        (bytes_text(5e9), "5 GB"),
        (bytes_text(1.5e15), "1,500 TB"),
        (bytes_text(7.25e13), "72.5 TB"),
    ],
)
def test_sizes_and_times_read_well(shown: str, text: str) -> None:
    assert shown == text
