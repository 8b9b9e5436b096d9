"""The committed partitions of a build, as a run knows them."""

import pickle
from dataclasses import replace

from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.types import PartitionRecord


def record(start: int, stop: int) -> PartitionRecord:
    return PartitionRecord(start=start, stop=stop, fingerprint="f", run=1, size=1)


def test_a_hash_is_added_to_a_record_that_came_from_a_footer() -> None:
    ledger = Ledger([record(0, 4)])
    hashed = replace(record(0, 4), sha256="abc")
    assert not ledger.note(hashed)
    assert ledger.records[hashed.partition.key].sha256 == "abc"
    assert not ledger.note(replace(hashed, sha256=None))
    assert ledger.records[hashed.partition.key].sha256 == "abc"
    assert not ledger.note(replace(hashed, size=2, sha256="def"))
    assert ledger.records[hashed.partition.key].sha256 == "abc"
    assert ledger.rows == 4


def test_what_is_known_at_the_start_and_what_is_noted_adds_up() -> None:
    first, second = record(0, 4), record(4, 7)
    ledger = Ledger([first])
    assert (ledger.rows, ledger.rows_before) == (4, 4)
    assert ledger.note(second)
    assert not ledger.note(second)
    assert not ledger.note(first)
    assert (ledger.rows, ledger.rows_before) == (7, 4)


def test_records_of_many_events_share_the_texts_that_are_the_same_in_all() -> None:
    sent = [
        PartitionRecord(
            start=start, stop=start + 4, fingerprint="f" * 64, run=1, size=1, rejected={"empty": 1}
        )
        for start in (0, 4)
    ]
    ledger = Ledger([])
    for one in sent:
        ledger.note(pickle.loads(pickle.dumps(one)))
    first, second = ledger.records.values()
    assert [first, second] == sent
    assert first.fingerprint is second.fingerprint
    assert next(iter(first.rejected)) is next(iter(second.rejected))
