"""Commands of README and docs that need no model and no cluster run as they are written.

Each page has a folder with the data sets that it names: OUTPUT, and buckets as folders. What generates, asks
the hub or plans a model of the hub is left to test_docs, and recipes.md, whose steps go over what passes have
made, to test_docs and the test of the pipeline.
"""

import json
import shlex
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from magpie_ray.cli import program
from magpie_ray.curation.output import CuratedSet, write_rows
from magpie_ray.curation.select import SelectSpec, select
from magpie_ray.dataset.rejects import replace_sample
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition
from tests.launch.test_docs import PAGES, blocks, commands, in_prose
from tests.support.builds import complete_build, config_of, refused

pytestmark = pytest.mark.slow  # imports Ray's and Anyscale's command lines

RUN_HERE = {"init", "status", "verify", "show", "report", "export", "select", "dedupe"}
NUM_ROWS, LARGE = 20, 5000
BUILDS = (
    *("out/demo", "out/answers"),
    *("OUTPUT", "BUCKET/demo", "BUCKET/raw", "BUCKET/instructions", "bucket/earlier", "out/qwen2.5-7b"),
    *("my-bucket/qwen", "my-bucket/magpie/qwen2.5-7b", "my-bucket/magpie/qwen2.5-7b/2026-11-26"),
)


def needs_no_model(words: Sequence[str]) -> bool:
    """A command on data sets that a page names; in a sentence, only one of OUTPUT."""
    return words[0] == "magpie-ray" and len(words) > 1 and words[1] in RUN_HERE and "/shared" not in words[-1]


def of_page(path: Path) -> Iterator[list[str]]:
    for block in blocks(path):
        yield from filter(needs_no_model, commands(block))
    for words in in_prose(path):
        if "OUTPUT" in words and needs_no_model(words):
            yield words


RUN = {path: list(of_page(path)) for path in PAGES if path.name != "recipes.md"}


def here(word: str) -> str:
    """A bucket is a folder."""
    return word.replace("s3://", "")


def make_build(place: str, num_rows: int) -> None:
    storage = Storage(place)
    named = {name: f"You know {name}." for name in ("math", "code")}
    complete_build(storage, num_rows=num_rows, grid=num_rows, config=config_of(system_prompt=named))
    replace_sample(storage, Partition(start=0, stop=num_rows), [refused(row_id=5, attempt=4)])


def make_set(place: str, **columns: pa.Array) -> None:
    """A data set such as a pass makes."""
    ids = pa.array(range(NUM_ROWS), pa.int64())
    fields = [pa.field("row_id", ids.type, nullable=False)]
    schema = pa.schema([*fields, *((name, column.type) for name, column in columns.items())])
    rows = pa.record_batch([ids, *columns.values()], schema=schema)
    write_rows(Storage(place), CuratedSet(kind="made", identity={}, schema=schema), [rows])


def make_scored_rows(place: str) -> None:
    """The rows of a build with their rewards."""
    spec = SelectSpec(
        sources={"rows": "OUTPUT", "scores": "BUCKET/scores"},
        sql="SELECT * FROM rows JOIN scores USING (row_id)",
        storage_options={},
    )
    select(Storage(place), spec)


def make_all(named: str) -> None:
    """Every data set and file whose name stands in the text, in the current directory."""
    for place in BUILDS:
        if place in named:
            make_build(place, LARGE if "--row 4711" in named else NUM_ROWS)
    if "out/daily/latest" in named:
        make_build("out/daily/2026-11-26", NUM_ROWS)
        Path("out/daily/latest.json").write_text(json.dumps({"path": "out/daily/2026-11-26"}))
    users = [[{"role": "user", "content": f"Why {n}?"}] for n in range(NUM_ROWS)]
    many = pa.array([["Because.", "No."]] * NUM_ROWS)
    vectors = pa.array([[1.0, n / NUM_ROWS] for n in range(NUM_ROWS)], pa.list_(pa.float32(), 2))
    good, ones = pa.array(["good"] * NUM_ROWS), pa.array([1.0] * NUM_ROWS)
    made = {
        "BUCKET/answers": {"conversation": pa.array(users), "responses": many},
        "BUCKET/rewards": {"instruct_reward": pa.array([[2.0, 1.0]] * NUM_ROWS)},
        "BUCKET/quality": {"input_quality": good},
        "BUCKET/scores": {"input_quality": good, "instruct_reward": ones},
        "scored": {"embedding": vectors},
    }
    for place, columns in made.items():
        if place in named:
            make_set(place, **columns)
    Path("benchmark.jsonl").write_text(json.dumps({"instruction": "Why?"}))


def test_there_are_commands_to_run() -> None:
    ran = {words[1] for page in RUN.values() for words in page}
    assert ran == RUN_HERE
    assert sum(map(len, RUN.values())) > 40


@pytest.mark.parametrize("path", [path for path in RUN if RUN[path]], ids=lambda path: path.name)
def test_the_commands_of_a_page_run_as_written(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    make_all("\n".join(map(shlex.join, RUN[path])))
    for words in RUN[path]:
        for made in (*tmp_path.glob("rows.*"), *tmp_path.glob("*.yaml"), *tmp_path.glob("train.*")):
            made.unlink()
        written = [here(word) for word in words]
        if "OUTPUT" in words and "instruct_reward" in words[-1]:
            make_scored_rows("OUTPUT with rewards")
            written = ["OUTPUT with rewards" if word == "OUTPUT" else word for word in written]
        monkeypatch.setattr(sys, "argv", written)
        with pytest.raises(SystemExit) as exit_:
            program.main()
        assert not exit_.value.code, f"{shlex.join(words)}\n{capfd.readouterr().err}"
