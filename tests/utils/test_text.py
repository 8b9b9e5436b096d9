"""Text for people: nothing in it steers a terminal, and numbers, sizes and times read well."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.utils.text import (
    bytes_text,
    clock_text,
    counted,
    percent,
    safe,
    short_number,
    shortened,
    span_text,
    three_digits,
    visible,
)


@pytest.mark.parametrize("text", ["日本語　全角", "👩\u200d🚀", "क्\u200dष", "5\u00a0€", "a\tb", "naïve"])
def test_text_in_any_language_is_left_as_it_is(text: str) -> None:
    assert safe(text) == text


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_no_text_keeps_a_control_character(text: str) -> None:
    allowed = {"\n", "\t", "\u200c", "\u200d"}
    kept = {unicodedata.category(c) for c in safe(text) if c not in allowed}
    assert not kept & {"Cc", "Cf", "Zl", "Zp", "Co", "Cn"}
    assert "\n" not in visible(text)
    assert safe(safe(text)) == safe(text)


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
        (percent(0), "0%"),
        (percent(1), "100%"),
        (percent(0.99999), "over 99.9%"),
        (percent(0.00001), "under 0.1%"),
        (percent(0.1234), "12.3%"),
        (short_number(74_700), "74.7k"),
        (short_number(9_999), "9,999"),
        (short_number(999_999), "1M"),
        (short_number(12_345_678), "12.3M"),
        (short_number(3.2e9), "3.2B"),
        (three_digits(0.01234), "0.0123"),
        (three_digits(45.67), "45.7"),
        (three_digits(999.6), "1,000"),
        (three_digits(12345.6), "12,300"),
        (counted(1, "file"), "1 file"),
        (counted(1_200, "file"), "1,200 files"),
        (shortened("abcdef", 3), "abc… (3 more characters)"),
        (shortened("abc", 3), "abc"),
    ],
)
def test_numbers_sizes_and_times_read_well(shown: str, text: str) -> None:
    assert shown == text
