"""Placeholders of output.path: what they stand for, and what their builds have in common."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.config.output_path import Place, Tick, fill, has_placeholders, place_of, problem, values_at

MOMENT = datetime(2026, 11, 26, 2, 0, 5, tzinfo=UTC)
VALUES = values_at(MOMENT, "tick-7")


@pytest.mark.parametrize(
    ("path", "filled"),
    [
        ("s3://b/daily/{date}", "s3://b/daily/2026-11-26"),
        ("./out/{datetime}", "./out/20261126T020005Z"),
        ("{build_id}", "tick-7"),
        ("gs://b/en-{date}_{build_id}/x", "gs://b/en-2026-11-26_tick-7/x"),
        ("/a/{{date}}/{date}", "/a/{date}/2026-11-26"),
        ("/plain", "/plain"),
    ],
)
def test_placeholders_are_replaced_and_doubled_braces_are_braces(path: str, filled: str) -> None:
    assert problem(path) is None
    assert fill(path, VALUES) == filled


@pytest.mark.parametrize(
    ("path", "parent", "latest"),
    [
        ("s3://b/daily/{date}", "s3://b/daily", "latest"),
        ("s3://b/{date}", "s3://b", "latest"),
        ("{date}", ".", "latest"),
        ("/{date}", "/", "latest"),
        ("s3://b/en-{date}_{build_id}-v2", "s3://b", "en-latest-v2"),
        ("s3://b/{date}/llama", "s3://b", "latest/llama"),
        ("s3://b/{date}/{build_id}/qwen", "s3://b", "latest/qwen"),
    ],
)
def test_builds_lie_together_below_what_is_literal(path: str, parent: str, latest: str) -> None:
    assert place_of(path) == Place(parent=parent, latest=latest)


@pytest.mark.parametrize("path", ["{day}", "{}", "{0}", "{", "}", "a}b", "{date!r}", "{date:%Y}", "{da{te}}"])
def test_other_braces_are_refused(path: str) -> None:
    assert "{date}, {datetime}, {build_id}; {{ is a brace" in str(problem(f"./out/{path}"))


@pytest.mark.parametrize("path", ["s3://{date}/x", "s3://b-{date}/x", "{date}://b/x", "s3://{build_id}"])
def test_a_bucket_is_literal(path: str) -> None:
    assert "scheme and bucket" in str(problem(path))


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_any_text_can_be_written_by_doubling_its_braces(text: str) -> None:
    written = text.replace("{", "{{").replace("}", "}}")
    assert problem(written) is None
    assert not has_placeholders(written)
    assert fill(written, {}) == text


def tick_of(template: str, *, day: int = 26, build_id: str = "a") -> Tick:
    return Tick(template=template, time=f"2026-11-{day}T02:00:00+00:00", build_id=build_id)


def test_ticks_sort_by_time_whatever_their_names() -> None:
    ticks = [
        tick_of("s3://b/{date}", day=day, build_id=name) for day, name in [(9 + 1, "z"), (25, "b"), (26, "a")]
    ]
    assert sorted(ticks, key=lambda tick: tick.order) == ticks


def test_only_a_day_s_build_is_the_same_for_two_runs() -> None:
    assert not tick_of("s3://b/{date}").is_unique
    assert tick_of("s3://b/{date}/{build_id}").is_unique
    assert tick_of("s3://b/{datetime}").is_unique
