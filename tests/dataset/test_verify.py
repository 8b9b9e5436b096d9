"""Whatever is wrong with a build is named, all of it at once, and nothing is touched."""

import io
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from magpie_ray.cli.views.status import status_fields, status_text
from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.layout import MANIFEST_KEY, SUCCESS_KEY
from magpie_ray.dataset.parquet import footer_bytes
from magpie_ray.dataset.reader import messages_of, read_rows
from magpie_ray.dataset.verify import verify
from magpie_ray.errors import BuildNotFoundError, CorruptBuildError
from magpie_ray.monitoring.status import read_status
from magpie_ray.storage.storage import Storage
from tests.support.builds import build_of, commit, complete_build, config_of, finish, memory_storage

FIRST, SECOND, THIRD = (f"data/part-{start:012d}.parquet" for start in (0, 4, 8))


@pytest.fixture
def storage() -> Storage:
    storage = memory_storage()
    complete_build(storage)
    return storage


def problems(storage: Storage, *, quick: bool = False) -> list[str]:
    before = {item.key: storage.read(item.key) for item in storage.list_objects("")}
    found = verify(storage, quick=quick)
    assert {item.key: storage.read(item.key) for item in storage.list_objects("")} == before
    assert found.ok == (not found.problems)
    return list(found.problems)


def flip(storage: Storage, key: str, position: int, bit: int = 0) -> None:
    data = bytearray(storage.read(key))
    data[position] ^= 1 << bit
    storage.replace(key, bytes(data))


def test_a_complete_build_is_in_order(storage: Storage) -> None:
    assert problems(storage) == problems(storage, quick=True) == []
    found = verify(storage)
    assert (found.num_rows, [record.start for record in found.records]) == (10, [0, 4, 8])


def test_a_build_that_was_completed_by_growing_is_in_order(storage: Storage) -> None:
    record, run = build_of(), run_records.start_run(storage, num_rows=13, host="here", config={})
    manifest.mark_growing(storage)
    for start, stop in ((10, 12), (12, 13)):
        commit(storage, record, start, stop)
    finish(storage, record, manifest.read_committed(storage, record), 13)
    run_records.end_run(storage, run, outcome="done")
    assert problems(storage) == []


def test_a_missing_file_and_its_rows_are_named(storage: Storage) -> None:
    storage.delete(SECOND)
    assert problems(storage) == [
        "rows 4..7 of 0..9 are missing",
        f"{SECOND} is in the manifest, but it is missing or unreadable",
    ]


def test_rows_that_were_never_written_are_named_in_few_ranges(storage: Storage) -> None:
    run_records.start_run(storage, num_rows=30, host="here", config={})
    assert problems(storage) == ["rows 10..29 of 0..29 are missing"]


def test_rows_that_no_run_asked_for_are_named(storage: Storage) -> None:
    commit(storage, build_of(), 12, 16)
    found = problems(storage)
    assert "data/part-000000000012.parquet holds rows 12..15, but no run asked for more than 10 rows" in found


def test_a_run_given_up_does_not_count_once_a_smaller_one_is_done(storage: Storage) -> None:
    given_up = run_records.start_run(storage, num_rows=1_000, host="here", config={})
    run_records.end_run(storage, given_up, outcome="interrupted")
    run_records.start_run(storage, num_rows=10, host="here", config={})
    assert problems(storage) == []
    assert read_status(storage).complete


def test_a_truncated_file_is_named(storage: Storage) -> None:
    storage.replace(SECOND, storage.read(SECOND)[:300])
    found = problems(storage)
    assert found[0].startswith(f"{SECOND} is not a whole Parquet file")
    assert found[1] == "rows 4..7 of 0..9 are missing"


def test_a_flipped_bit_in_a_page_is_found_by_its_checksum() -> None:
    storage = memory_storage()
    complete_build(storage, texts=["a question that is long enough to be a page" * 9, "an answer" * 9])
    column = pq.read_metadata(storage_file(storage, SECOND)).row_group(0).column(1)
    flip(storage, SECOND, column.data_page_offset + column.total_compressed_size - 3)
    found = problems(storage)
    assert found[0].startswith(f"{SECOND} is damaged")
    assert problems(storage, quick=True) == []  # as its help says


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_every_flipped_byte_is_found(storage: Storage, step: int) -> None:
    """One bit of every byte of the footer, or of every 29th, and of some bytes before it."""
    sound, draw = storage.read(SECOND), random.Random(0)
    footer = len(sound) - footer_bytes(sound)
    positions = [*draw.sample(range(footer), 30), *range(footer, len(sound), step)]
    missed = []
    for position in positions:
        storage.replace(SECOND, sound)
        flip(storage, SECOND, position, draw.randrange(8))
        if verify(storage).ok:
            missed.append(position)
    assert missed == []
    storage.replace(SECOND, sound)
    assert problems(storage) == []


def test_files_without_a_recorded_hash_are_counted(storage: Storage) -> None:
    record = build_of()
    storage.delete(MANIFEST_KEY)
    manifest.write_manifest(storage, record, manifest.read_committed(storage, record), num_rows=10)
    found = verify(storage)
    assert (found.ok, found.unhashed) == (True, 3)
    [note] = found.notes
    assert "no hash of 3 of 3 files" in note
    assert verify(storage, quick=True).notes == ()


def storage_file(storage: Storage, key: str) -> object:
    return io.BytesIO(storage.read(key))


def test_wherever_a_bit_flips_it_is_found_or_changes_no_row(storage: Storage) -> None:
    sound, draw = storage.read(SECOND), random.Random(0)
    rows = pq.read_table(storage_file(storage, SECOND)).to_pylist()
    unseen = 0
    for _ in range(60):
        storage.replace(SECOND, sound)
        flip(storage, SECOND, draw.randrange(len(sound)), draw.randrange(8))
        if verify(storage).ok:
            unseen += 1
            assert pq.read_table(storage_file(storage, SECOND)).to_pylist() == rows
    assert unseen < 40


def test_a_file_with_the_wrong_rows_is_named(storage: Storage) -> None:
    table = pq.read_table(storage_file(storage, SECOND))
    sink = io.BytesIO()
    pq.write_table(table.take([1, 0, 2, 3]), sink)
    storage.replace(SECOND, sink.getvalue())
    assert f"{SECOND} does not hold rows 4..7 in order" in problems(storage)
    sink = io.BytesIO()
    pq.write_table(table.drop_columns(["attempt"]), sink)
    storage.replace(SECOND, sink.getvalue())
    assert any(problem.startswith(f"{SECOND} has other columns") for problem in problems(storage))


def test_everything_that_is_wrong_is_listed_at_once(storage: Storage) -> None:
    storage.create("data/notes.parquet", b"hello")
    storage.replace(FIRST, b"PAR1")
    storage.delete(THIRD)
    storage.delete(SUCCESS_KEY)
    storage.replace(MANIFEST_KEY, b"{")
    storage.create("_magpie/runs/000009.json", b"?")
    commit(storage, build_of(seed=3), 12, 16)
    found = "\n".join(problems(storage))
    for named in (
        "data/notes.parquet",
        FIRST,
        "belongs to another build",
        "runs/000009.json",
        MANIFEST_KEY,
        SUCCESS_KEY,
    ):
        assert named in found
    assert "rows 0..3 of 0..15 are missing\nrows 8..11 of 0..15 are missing" in found


def test_a_manifest_that_is_stale_or_missing_is_a_problem(storage: Storage) -> None:
    record = build_of()
    records = manifest.read_committed(storage, record)
    manifest.write_manifest(storage, record, records[:2], num_rows=10)
    assert problems(storage) == [
        f"{THIRD} is committed, but not in the manifest: run the build again to bring it up to date"
    ]
    storage.delete(MANIFEST_KEY)
    assert problems(storage) == [f"{MANIFEST_KEY} is missing: the build was not finished; run it again"]


def test_a_build_without_success_was_not_finished(storage: Storage) -> None:
    storage.delete(SUCCESS_KEY)
    assert problems(storage) == ["_SUCCESS is missing: the build was not finished; run it again"]


def test_a_build_that_no_run_worked_on_is_not_complete() -> None:
    storage = memory_storage()
    record = build_record.open_build(storage, build_of())
    finish(storage, record, [], 0)
    assert any("no rows yet" in problem for problem in problems(storage))
    assert not read_status(storage).complete


def test_the_status_is_read_from_storage_alone(storage: Storage) -> None:
    status = read_status(storage)
    assert (status.num_rows, status.tally.rows, status.complete) == (10, 10, True)
    assert status.size == sum(item.size for item in storage.list_objects("data"))
    run_records.start_run(storage, num_rows=20, host="here", config={})
    manifest.mark_growing(storage)
    growing = read_status(storage)
    assert (growing.num_rows, growing.tally.rows, growing.complete) == (20, 10, False)


def test_an_output_without_a_build_is_a_usage_error(tmp_path: Path) -> None:
    for look in (verify, read_status):
        with pytest.raises(BuildNotFoundError, match=r"holds no build: there is no .*_magpie/build\.json"):
            look(Storage(str(tmp_path)))


def test_the_status_of_a_build_with_foreign_files_is_refused(storage: Storage) -> None:
    commit(storage, build_of(seed=3), 12, 16)
    with pytest.raises(CorruptBuildError, match=r"data/part-000000000012\.parquet belongs to another build"):
        read_status(storage)


def test_the_status_goes_on_where_the_record_of_a_run_is_damaged(storage: Storage) -> None:
    storage.create("_magpie/runs/000009.json", b"?")
    status = read_status(storage)
    assert status.complete
    [problem] = status.problems
    assert "runs/000009.json is damaged" in problem
    text = status_text(status_fields(status))
    assert f"problem     {problem}; see `magpie-ray verify`" in text


def test_rows_that_ended_early_are_as_good_as_the_others() -> None:
    storage, config = memory_storage(), config_of(num_rows=8, n_turns=3, acceptance={"context_full": "stop"})
    record = build_record.open_build(storage, build_of(4, config))
    run = run_records.start_run(storage, num_rows=8, host="here", config={})
    texts = ["Why?", "Because.", "How?", "So.", "When?", "Now."]
    records = [
        commit(storage, record, start, start + 4, config=config, texts=texts[:count])
        for start, count in ((0, 6), (4, 2))
    ]
    finish(storage, record, records, 8)
    run_records.end_run(storage, run, outcome="done")
    assert verify(storage).problems == ()
    rows = list(read_rows(storage))
    assert [len(row["conversation"]) for row in rows] == [6] * 4 + [2] * 4
    assert [len(row["completion_tokens"]) for row in rows] == [6] * 4 + [2] * 4
    assert [text for _, text in messages_of(rows[-1])] == texts[:2]
