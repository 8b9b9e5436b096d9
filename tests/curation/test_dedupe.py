"""From a source to the data set that marks its near-duplicates."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.curation.dedupe import DedupeSpec, dedupe
from magpie_ray.curation.output import CuratedSet, write_rows
from magpie_ray.dataset.verify import verify
from magpie_ray.errors import BuildMismatchError, ConfigError, PreflightError
from magpie_ray.storage.storage import Storage

TEXTS = (
    "Write a short poem about the sea",
    "What is 12 x 7?",
    "write a SHORT poem about the sea!",
    "What is 12 x 8?",
    "Write a long poem about the war",
)


def written(folder: Path, texts: Sequence[str], *, files: int = 1) -> str:
    """Texts as JSON lines in so many files; the place."""
    folder.mkdir()
    bounds = np.linspace(0, len(texts), files + 1).astype(int)
    for number in range(files):
        lines = [json.dumps({"instruction": text}) for text in texts[bounds[number] : bounds[number + 1]]]
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)


def rows_of(storage: Storage) -> list[dict[str, Any]]:
    tables = [pq.read_table(pa.BufferReader(storage.read(o.key))) for o in storage.list_objects("data/")]
    return pa.concat_tables(tables).to_pylist()


def test_each_row_says_what_is_near(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "marked"))
    done = dedupe(storage, DedupeSpec(source=written(tmp_path / "rows", TEXTS)))
    assert (done.rows, done.repeats, done.is_new) == (5, 1, True)
    assert verify(storage).problems == ()
    rows = rows_of(storage)
    assert list(rows[0]) == ["row_id", "min_neighbor_distance", "min_similar_row_id", "repeat_count"]
    assert [row["repeat_count"] for row in rows] == [0, 0, 1, 0, 0]
    assert [row["min_similar_row_id"] for row in rows] == [2, None, 0, None, None]
    assert [row["min_neighbor_distance"] for row in rows] == [0, 1, 0, 1, 1]


def test_numbers_count_unless_they_are_ignored(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "marked"))
    dedupe(storage, DedupeSpec(source=written(tmp_path / "rows", TEXTS), ignore_numbers=True))
    assert [row["repeat_count"] for row in rows_of(storage)] == [0, 0, 1, 1, 0]


def test_other_sets_get_columns(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "marked"))
    against = (
        written(tmp_path / "one", ["Unrelated text"]),
        written(tmp_path / "two", ["?", "what is 12 x 8"]),
    )
    done = dedupe(storage, DedupeSpec(source=written(tmp_path / "rows", TEXTS), against=against))
    assert done.near_others == 1
    rows = rows_of(storage)
    assert [row["against_distance"] for row in rows] == [1, 1, 1, 0, 1]
    assert [row["against_row_id"] for row in rows] == [None, None, None, 1, None]
    assert [row["against_set"] for row in rows] == [None, None, None, 1, None]


def test_the_same_command_again_does_nothing_and_another_is_refused(tmp_path: Path) -> None:
    storage, source = Storage(str(tmp_path / "marked")), written(tmp_path / "rows", TEXTS)
    dedupe(storage, DedupeSpec(source=source))
    again = dedupe(storage, DedupeSpec(source=source))
    assert (again.rows, again.is_new) == (5, False)
    with pytest.raises(BuildMismatchError, match=r"distance: the build has 0\.05, now 0\.1"):
        dedupe(storage, DedupeSpec(source=source, distance=0.1))


def test_a_source_that_has_grown_is_refused(tmp_path: Path) -> None:
    storage, source = Storage(str(tmp_path / "marked")), written(tmp_path / "rows", TEXTS)
    dedupe(storage, DedupeSpec(source=source))
    (tmp_path / "rows" / "1.jsonl").write_text(json.dumps({"instruction": "New"}) + "\n")
    with pytest.raises(BuildMismatchError, match="source: the build has"):
        dedupe(storage, DedupeSpec(source=source))


def test_how_rows_lie_in_files_does_not_matter(tmp_path: Path) -> None:
    texts = [f"{text} {'again' * (number % 3)} {number // 9}" for number, text in enumerate(TEXTS * 20)]
    rows = []
    for files in (1, 7):
        storage = Storage(str(tmp_path / f"marked{files}"))
        dedupe(storage, DedupeSpec(source=written(tmp_path / f"rows{files}", texts, files=files)))
        rows.append(rows_of(storage))
    assert rows[0] == rows[1]


def scored(place: str, vectors: Sequence[Sequence[float]], *columns: str) -> str:
    """A data set with these vectors in each of the columns."""
    kind = pa.list_(pa.float32(), len(vectors[0]))
    schema = pa.schema([pa.field("row_id", pa.int64()), *(pa.field(name, kind) for name in columns)])
    arrays = [pa.array(range(len(vectors)), pa.int64()), *([pa.array(vectors, kind)] * len(columns))]
    wanted = CuratedSet(kind="score", identity={"place": place}, schema=schema, rows_per_file=2)
    write_rows(Storage(place), wanted, [pa.record_batch(arrays, schema=schema)])
    return place


VECTORS = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.0, 1.0], [1.0, 0.01]]


def test_embeddings_are_compared_in_place_of_words(tmp_path: Path) -> None:
    storage, source = Storage(str(tmp_path / "marked")), written(tmp_path / "rows", TEXTS)
    vectors = scored(str(tmp_path / "scores"), VECTORS, "embedding")
    others = scored(str(tmp_path / "others"), VECTORS[2:3], "embedding")
    dedupe(storage, DedupeSpec(source=source, embeddings=vectors, against=(others,)))
    rows = rows_of(storage)
    assert [row["repeat_count"] for row in rows] == [0, 0, 0, 0, 1]  # rows 1 and 3 have other numbers
    assert [row["min_similar_row_id"] for row in rows] == [4, None, 4, None, 0]
    assert [row["against_row_id"] for row in rows] == [0] * 5
    assert rows[2]["against_distance"] == 0
    both = Storage(str(tmp_path / "both"))
    dedupe(both, DedupeSpec(source=source, embeddings=vectors, ignore_numbers=True))
    assert [row["repeat_count"] for row in rows_of(both)] == [0, 0, 0, 1, 1]


def test_embeddings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    storage, source = Storage(str(tmp_path / "marked")), written(tmp_path / "rows", TEXTS)

    def refused(match: str, **keys: Any) -> None:
        error = PreflightError if "no data set" in match else ConfigError
        with pytest.raises(error, match=match):
            dedupe(storage, DedupeSpec(source=source, **keys))

    two = scored(str(tmp_path / "two"), VECTORS, "a", "b")
    refused("has a, b of vectors", embeddings=two)
    refused("has no column c of vectors .*; it has a, b", embeddings=two, embedding_column="c")
    short = scored(str(tmp_path / "short"), VECTORS[:3], "embedding")
    refused("has 3 rows and .* has 5", embeddings=short)
    wide = scored(str(tmp_path / "wide"), [[1.0, 2.0, 3.0]], "a")
    refused(
        "have 3 numbers and those of --embeddings 2", embeddings=two, embedding_column="a", against=(wide,)
    )
    refused("no data set of magpie-ray", embeddings=source)
    assert storage.list_objects("") == []


def test_wrong_settings_are_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match=r"--distance: got 0\.3, must be between 0 and 0\.2"):
        DedupeSpec(source="s", distance=0.3)
    with pytest.raises(ConfigError, match="--embedding-column: needs --embeddings"):
        DedupeSpec(source="s", embedding_column="a")


def test_a_source_without_answers_has_no_responses(tmp_path: Path) -> None:
    source = written(tmp_path / "rows", TEXTS)
    with pytest.raises(ConfigError, match=r"--of response: row 0 .* ends with the user"):
        dedupe(Storage(str(tmp_path / "marked")), DedupeSpec(source=source, of="response"))


def test_an_output_inside_a_place_that_is_read_is_refused(tmp_path: Path) -> None:
    source, other = written(tmp_path / "rows", TEXTS), written(tmp_path / "other", TEXTS)
    for inside, option in ((source, "SOURCE"), (other, "--against")):
        with pytest.raises(ConfigError, match=rf"DEST: got .*, which lies in {option} \("):
            dedupe(Storage(f"{inside}/marked"), DedupeSpec(source=source, against=(other,)))
        assert not (Path(inside) / "marked").exists()
