"""What people see. Generated text is data there, and can do nothing to a terminal."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from magpie_ray.cli.printing import json_text
from magpie_ray.cli.views import results
from magpie_ray.cli.views.results import result_text
from magpie_ray.cli.views.rows import row_panel
from magpie_ray.coordinator.run import BuildResult
from magpie_ray.dataset.verify import verify
from magpie_ray.utils.text import safe
from tests.support.builds import complete_build, memory_storage


def shown(text: str, *, role: str = "user", key: str | None = None) -> str:
    """A row as a colour terminal gets it."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=200)
    row = {"row_id": 7, "conversation": [{"role": role, "content": text}], "system_prompt_key": key}
    console.print(row_panel(row))
    return out.getvalue()


PLAIN = shown("plain")


@pytest.mark.parametrize(
    ("hostile", "visible"),
    [
        ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),
        ("\x1b]8;;http://evil\x07link\x1b]8;;\x07", r"\x1b]8;;http://evil\x07link"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", r"\x1b]8;;http://evil\x1b\link"),
        ("\x9b31mred", r"\x9b31mred"),
        ("\x9d8;;http://evil\x9clink", r"\x9d8;;http://evil\x9clink"),
        ("\x1b]52;c;ZXZpbA==\x07", r"\x1b]52;c;ZXZpbA==\x07"),
        ("\x90q\x9c", r"\x90q\x9c"),
        ("line\u2028break", r"line\u2028break"),
        ("\u200fright\u061c", r"\u200fright\u061c"),
        ("over\rwritten\x08", r"over\rwritten\x08"),
        ("nul\0", r"nul\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066isolated\u2069", r"\u2066isolated\u2069"),
        ("\ufeffbom", r"\ufeffbom"),
        ("\U000e0041tag", r"\U000e0041tag"),
    ],
)
def test_what_could_steer_a_terminal_is_made_visible(hostile: str, visible: str) -> None:
    assert visible in shown(hostile)
    for out in (shown(hostile), shown("x", role=hostile), shown("x", key=hostile)):
        ours = set(PLAIN) | {"\x1b"}
        steering = {c for c in out if not c.isprintable()} - ours
        assert not steering
        assert "\x1b[2J" not in out
        assert "\x1b[31m" not in out
        assert "\x1b]8" not in out


@pytest.mark.parametrize(
    "text",
    [
        "[bold]not bold[/bold]",
        "[link=http://evil]x[/link]",
        "[/]",
        "[red",
        ":smile:",
        "<b>&amp;",
        "**md** # h",
        "[text](http://evil) ![image](http://evil/x.png)",
        "<script>alert(1)</script>",
        "{{ 7 * 7 }} {% raw %}",
    ],
)
def test_markup_in_generated_text_is_only_text(text: str) -> None:
    assert text in shown(text)
    assert text in shown("x", key=text)


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_json_is_safe_and_says_the_same(text: str) -> None:
    printed = json_text({"text": text, text: 1})
    assert json.loads(printed) == {"text": text, text: 1}
    assert safe(printed) == printed


def test_a_verification_reads_well() -> None:
    storage = memory_storage()
    complete_build(storage)
    text = results.verification_text(results.verification_fields(verify(storage)))
    assert text == f"{storage.url}: 10 rows in 3 files, complete and consistent: row_id 0..9, each once"
    storage.create("data/Thumbs.db", b"?")
    noted = results.verification_text(results.verification_fields(verify(storage))).splitlines()
    assert (noted[0], "note: " in noted[1], "data/Thumbs.db" in noted[1]) == (text, True, True)
    storage.delete("_SUCCESS")
    storage.delete("data/part-000000000000.parquet")
    text = results.verification_text(results.verification_fields(verify(storage)))
    assert text.splitlines()[:2] == [
        f"{storage.url}: 6 rows in 2 files, 3 problems:",
        "  rows 0..3 of 0..9 are missing",
    ]


def test_a_rate_stands_beside_the_time_it_counts_and_figures_of_engines_are_for_the_verbose() -> None:
    result = BuildResult(
        url="/data/demo",
        num_rows=200,
        new_rows=200,
        tokens=7500,
        seconds=5.0,
        wall_seconds=116.0,
        attempts=200,
    )
    brief, verbose = result_text(result), result_text(result, verbose=True)
    assert brief.startswith(
        "200 rows in 116 s, of which engines were up for 5 s: 40.0 rows/s, 1,500 tokens/s."
    )
    assert "preemptions" in verbose
    assert "preemptions" not in brief


def test_of_a_score_pass_the_end_tells_requests_and_rows_that_lack_a_value() -> None:
    result = BuildResult(
        url="/data/scores",
        job="score",
        num_rows=200,
        new_rows=200,
        tokens=400,
        seconds=5.0,
        wall_seconds=9.0,
        attempts=200,
        rejected=3,
    )
    first, *_ = result_text(result).splitlines()
    assert first.endswith(": 40.0 rows/s, 80 requests/s, 3 of 200 rows lack a value.")
