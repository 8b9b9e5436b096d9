"""The committed partitions of a build, as a run knows them."""

from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.types import PartitionRecord


def record(start: int, stop: int) -> PartitionRecord:
    return PartitionRecord(start=start, stop=stop, fingerprint="f", run=1, size=1)


def test_what_is_known_at_the_start_and_what_is_noted_adds_up() -> None:
    first, second = record(0, 4), record(4, 7)
    ledger = Ledger([first])
    assert (ledger.rows, ledger.rows_before) == (4, 4)
    assert ledger.note(second)
    assert not ledger.note(second)
    assert not ledger.note(first)
    assert (ledger.rows, ledger.rows_before) == (7, 4)
