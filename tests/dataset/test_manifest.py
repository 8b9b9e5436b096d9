"""The footers are the truth, and the manifest only a summary of them."""

import json
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.dataset import completion, manifest, run_records
from magpie_ray.dataset.layout import MANIFEST_KEY
from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord
from tests.support.builds import build_of, commit, complete_build, memory_storage


class CountingStorage(Storage):
    """Remembers what was read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.tails: list[str] = []

    def read_tail(self, key: str, nbytes: int, *, size: int | None = None) -> bytes:
        self.tails.append(key)
        return super().read_tail(key, nbytes, size=size)


def test_what_is_committed_is_read_from_the_footers_alone() -> None:
    storage, record = memory_storage(), build_of()
    assert manifest.read_committed(storage, record) == []
    later, first = commit(storage, record, 4, 8), commit(storage, record, 0, 4)
    assert manifest.read_committed(storage, record) == [first, later]


def test_footers_that_the_manifest_knows_are_not_read_again() -> None:
    storage, record = CountingStorage(memory_storage().url), build_of()
    records = [commit(storage, record, 0, 4), commit(storage, record, 4, 8)]
    manifest.write_manifest(storage, record, records, num_rows=12)
    records.append(commit(storage, record, 8, 12))
    assert manifest.read_committed(storage, record) == records
    assert storage.tails == [records[2].partition.key]


def test_a_file_of_another_size_than_the_manifest_says_is_looked_at() -> None:
    storage, record = memory_storage(), build_of()
    known = commit(storage, record, 0, 4)
    manifest.write_manifest(storage, record, [known], num_rows=4)
    storage.replace(known.partition.key, storage.read(known.partition.key)[:-9])
    with pytest.raises(CorruptBuildError, match=known.partition.key):
        manifest.read_committed(storage, record)


def test_a_manifest_of_another_build_is_not_believed() -> None:
    storage, record, other = memory_storage(), build_of(), build_of(seed=5)
    ours = commit(storage, record, 0, 4)
    theirs = commit(memory_storage(), other, 0, 4)
    assert ours.size == theirs.size
    manifest.write_manifest(storage, other, [theirs], num_rows=4)
    assert manifest.read_committed(storage, record) == [ours]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b'{"partitions": [',
        b"{}",
        b"[]",
        b'{"partitions": 1}',
        b'{"partitions": [1]}',
        b'{"partitions": [{"start": 0}]}',
        b'{"partitions": [{"start": "0", "stop": 4, "fingerprint": "f", "run": 1, "size": 3}]}',
        b'{"partitions": [{"start": 4, "stop": 4, "fingerprint": "f", "run": 1, "size": 3}]}',
    ],
)
def test_a_damaged_manifest_stops_no_resume(raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    storage, record = memory_storage(), build_of()
    written = commit(storage, record, 0, 4)
    storage.create(MANIFEST_KEY, raw)
    with pytest.raises(CorruptBuildError, match=MANIFEST_KEY):
        manifest.read_manifest(storage)
    assert manifest.read_committed(storage, record) == [written]
    assert "reading all footers instead" in caplog.text


@given(
    number=st.integers(0, 20),
    piece_bytes=st.integers(0, 3000),
    indent=st.sampled_from([None, 1]),
    sort_keys=st.booleans(),
)
def test_a_manifest_is_the_same_in_pieces_of_any_size(
    number: int, piece_bytes: int, indent: int | None, sort_keys: bool
) -> None:
    records = [
        PartitionRecord(start=i, stop=i + 1, fingerprint="f", run=1, rejected={"empty": 2, "refusal": i})
        for i in range(number)
    ]
    fields = {"fingerprint": "f", "partitions": [asdict(record) for record in records], "rejected": {}}
    raw = json.dumps(fields, indent=indent, sort_keys=sort_keys).encode()
    assert list(manifest.parse_manifest(raw, "it", piece_bytes=piece_bytes)) == records


def test_hashes_are_taken_from_a_large_manifest_without_holding_all_of_it() -> None:
    storage, record, number = memory_storage(), build_of(grid=4), 20_000
    records = [
        PartitionRecord(
            start=4 * i,
            stop=4 * i + 4,
            fingerprint=record.fingerprint,
            run=1,
            size=10_000 + i,
            rejected={"refusal": 300 + i, "repetition": 400 + i},
            user_tokens=1000 + i,
            assistant_tokens=2000 + i,
            sha256=f"{i:064x}",
        )
        for i in range(number)
    ]
    manifest.write_manifest(storage, record, records, num_rows=4 * number)
    text = len(storage.read(MANIFEST_KEY))
    records[7] = replace(records[7], sha256=None)
    checkpoints = manifest.Checkpoints(storage, record, num_rows=4 * number)
    tracemalloc.start()
    try:
        for write in (
            lambda: checkpoints.write(records),
            lambda: manifest.write_manifest(storage, record, records, num_rows=4 * number),
        ):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            write()
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < 3 * text
            assert list(manifest.read_manifest(storage).values())[7].sha256 == f"{7:064x}"
    finally:
        tracemalloc.stop()


def test_every_file_that_does_not_belong_is_named_and_none_is_deleted() -> None:
    storage, record = memory_storage(), build_of()
    commit(storage, record, 0, 3)
    commit(storage, record, 2, 4)  # overlaps
    commit(storage, record, 6, 10)  # crosses 8
    commit(storage, build_of(seed=2), 12, 16)
    storage.create("data/part-000000000016.parquet", b"hello")
    storage.create("data/part-000000000020.parquet", storage.read("data/part-000000000000.parquet"))
    before = storage.list_objects("")
    with pytest.raises(CorruptBuildError) as caught:
        manifest.read_committed(storage, record)
    _, *lines, remedy = str(caught.value).splitlines()
    assert "move them away" in remedy
    assert [line.split()[0] for line in lines] == [
        "data/part-000000000016.parquet",
        "data/part-000000000020.parquet",
        "data/part-000000000002.parquet",
        "data/part-000000000006.parquet",
        "data/part-000000000012.parquet",
    ]
    for line, reason in zip(
        lines, ("whole", "renamed", "overlaps", "grid line", "another build"), strict=True
    ):
        assert reason in line
    assert storage.list_objects("") == before


def test_a_long_footer_is_read_whole(tmp_path: Path) -> None:
    storage = CountingStorage(str(tmp_path))
    written = commit(storage, build_of(), 0, 4)
    read = manifest.footer_of(storage, written.partition.key, size=written.size, read_bytes=100)
    assert read == written
    assert len(storage.tails) == 2


def test_what_is_pending_is_what_no_footer_covers() -> None:
    storage, record = memory_storage(), build_of()
    records = [commit(storage, record, 0, 2), commit(storage, record, 4, 8)]
    assert [(p.start, p.stop) for p in manifest.pending(10, record, records)] == [(2, 4), (8, 10)]


def test_the_manifest_sums_up_the_partitions() -> None:
    storage = memory_storage()
    record, records = complete_build(storage)
    fields = json.loads(storage.read(MANIFEST_KEY))
    assert [entry["start"] for entry in fields["partitions"]] == [0, 4, 8]
    assert fields["fingerprint"] == record.fingerprint
    assert (fields["num_rows"], fields["rows"], fields["attempts"], fields["rejected"]) == (10, 10, 10, {})
    assert (fields["user_tokens"], fields["assistant_tokens"]) == (200, 210)
    assert fields["bytes"] == sum(item.size for item in storage.list_objects("data"))
    assert manifest.read_manifest(storage) == {r.partition.key: r for r in records}


def test_a_build_that_grows_is_not_marked_complete() -> None:
    storage = memory_storage()
    record, records = complete_build(storage)
    assert manifest.is_marked_complete(storage)
    manifest.mark_growing(storage)
    manifest.mark_growing(storage)
    assert not manifest.is_marked_complete(storage)
    assert [(p.start, p.stop) for p in manifest.pending(14, record, records)] == [(10, 12), (12, 14)]
    commit(storage, record, 10, 12)
    assert [r.start for r in manifest.read_committed(storage, record)] == [0, 4, 8, 10]


def test_success_waits_while_another_run_fills_holes_further_up() -> None:
    storage = memory_storage()
    record = build_of(grid=4)
    lower = [commit(storage, record, 0, 4), commit(storage, record, 4, 8)]
    upper = commit(storage, record, 12, 16)
    completion.finish(storage, record, [*lower, upper], num_rows=8, run=None)
    assert not manifest.is_marked_complete(storage)
    between = commit(storage, record, 8, 12)
    completion.finish(storage, record, [*lower, between, upper], num_rows=8, run=None)
    assert manifest.is_marked_complete(storage)


def test_success_is_left_to_a_later_run_that_works_on_more_rows() -> None:
    storage = memory_storage()
    record = build_of(grid=4)
    ours = run_records.start_run(storage, num_rows=4, host="here", config={})
    theirs = run_records.start_run(storage, num_rows=8, host="there", config={})
    records = [commit(storage, record, 0, 4)]
    completion.finish(storage, record, records, num_rows=4, run=ours)
    assert not manifest.is_marked_complete(storage)
    records.append(commit(storage, record, 4, 8))
    completion.finish(storage, record, records, num_rows=8, run=theirs)
    assert manifest.is_marked_complete(storage)


def test_last_words_that_are_missing_damaged_or_stale_are_noticed() -> None:
    storage = memory_storage()
    _, records = complete_build(storage)
    assert manifest.is_up_to_date(storage, records)
    assert not manifest.is_up_to_date(storage, records[:-1])
    storage.replace(MANIFEST_KEY, b"{")
    assert not manifest.is_up_to_date(storage, records)
    storage.delete(MANIFEST_KEY)
    assert not manifest.is_up_to_date(storage, records)
