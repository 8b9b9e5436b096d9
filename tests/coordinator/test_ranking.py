"""Slots by a key that changes: against sorting them anew each time."""

from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.coordinator.ranking import SlotRanking

CHANGES = st.lists(st.tuples(st.integers(0, 8), st.none() | st.integers(0, 5)), max_size=40)


@given(changes=CHANGES, bound=st.integers(0, 6))
def test_it_says_what_sorting_anew_would_say(changes: list[tuple[int, int | None]], bound: int) -> None:
    ranking, keys = SlotRanking[int](), dict[int, int]()
    for slot, key in changes:
        ranking.put(slot, key)
        keys.pop(slot, None)
        if key is not None:
            keys[slot] = key
        order = sorted((key, slot) for slot, key in keys.items())
        assert ranking.key(slot) == key
        assert ranking.last() == (order[-1] if order else None)
        others = [entry for entry in order if entry[1] != slot]
        assert ranking.last(but=slot) == (others[-1] if others else None)
        assert ranking.until(bound) == sorted(slot for key, slot in order if key < bound)
        middle = ranking.middle()
        assert (sum(middle) / len(middle) if middle else None) == (median(keys.values()) if keys else None)
