"""Tallies of attempts and tokens."""

from dataclasses import replace

from magpie_ray.counters import EngineStats, Tally
from magpie_ray.types import Message, PartitionRecord, Rejection, Role, Row


def message(role: Role, tokens: int) -> Message:
    return Message(role=role, text="x", finish_reason="stop", prompt_tokens=9, completion_tokens=tokens)


ROW = Row(
    row_id=1,
    messages=(message("user", 2), message("assistant", 3), message("user", 5)),
    system_prompt=None,
    attempt=2,
)
REJECTION = Rejection(
    row_id=1,
    attempt=1,
    role="assistant",
    turn=1,
    reason="empty",
    text="",
    user_tokens=4,
    assistant_tokens=1,
)


def test_an_accepted_row_counts_its_tokens_by_role() -> None:
    assert Tally.of_row(ROW) == Tally(rows=1, user_tokens=7, assistant_tokens=3)


def test_a_rejection_counts_its_reason_and_its_tokens_and_no_row() -> None:
    assert Tally.of_rejection(REJECTION) == Tally(
        rejected={"empty": 1}, rejected_at=(0, 1), user_tokens=4, assistant_tokens=1
    )


def test_rejections_add_up_by_the_place_of_their_message() -> None:
    early = Tally.of_rejection(replace(REJECTION, role="user", turn=1))
    late = Tally.of_rejection(replace(REJECTION, role="user", turn=2))
    total = Tally.sum([late, early, late])
    assert total.rejected_at == (1, 0, 2)
    assert total.since(early).rejected_at == (0, 0, 2)
    assert total.since(Tally()).rejected_at == (1, 0, 2)


def test_tallies_add_up_in_any_order_and_grouping() -> None:
    row, rejection = Tally.of_row(ROW), Tally.of_rejection(REJECTION)
    total = Tally.sum([row, rejection, rejection])
    assert total == Tally.sum([rejection, Tally.sum([row, rejection])])
    assert total.rejected == {"empty": 2}
    assert (total.rows, total.attempts, total.tokens) == (1, 3, 20)
    assert Tally.sum([]) == Tally()


def test_a_record_and_the_attempts_behind_it_make_the_same_tally() -> None:
    record = PartitionRecord(
        start=1,
        stop=2,
        fingerprint="f",
        run=1,
        size=9,
        rejected={"empty": 1},
        rejected_at=(0, 1),
        user_tokens=11,
        assistant_tokens=4,
    )
    assert Tally.sum([record]) == Tally.sum([Tally.of_row(ROW), Tally.of_rejection(REJECTION)])


def test_the_use_of_engines_adds_up_and_tells_shares_of_the_sums() -> None:
    one = EngineStats(
        steps=10,
        slots=80,
        running=70,
        kv_tokens=1000,
        kv_used_tokens=300,
        known_tokens=90,
        cached_tokens=80,
        preemptions=1,
    )
    other = EngineStats(
        steps=30,
        slots=120,
        running=80,
        kv_tokens=3000,
        kv_used_tokens=100,
        known_tokens=10,
        cached_tokens=10,
        recomputed_tokens=5,
    )
    both = EngineStats.sum([one, other])
    assert (both.occupancy, both.kv_use, both.prefix_hits, both.read_again) == (0.75, 0.1, 0.9, 15)
    assert both.since(one) == other
    assert str(both) == (
        "40 engine steps, the batch 75% filled, the KV cache 10%; 90.0% of known prompt tokens found in the "
        "cache, 15 read again; 1 preemptions"
    )
    assert EngineStats.sum([]) == EngineStats()
