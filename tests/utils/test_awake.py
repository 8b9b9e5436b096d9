"""A clock without the pauses of its process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.utils.awake import AwakeClock
from magpie_ray.utils.background import within


class Kernel:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_clock_that_ticks_goes_like_any_other() -> None:
    kernel = Kernel()
    clock = AwakeClock(kernel, longest_gap=5.0)
    for _ in range(100):
        kernel.now += 1.0
        assert clock() == kernel.now


def test_a_pause_counts_as_the_longest_gap_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    kernel = Kernel()
    clock = AwakeClock(kernel, longest_gap=5.0)
    kernel.now += 3600.0
    assert clock() == 1005.0
    assert "did not run for 3600 s" in caplog.text
    kernel.now += 2.0
    assert clock() == 1007.0


@given(st.lists(st.floats(0.0, 1e6)))
def test_it_never_goes_back_nor_faster_than_the_kernels(steps: list[float]) -> None:
    kernel = Kernel()
    clock = AwakeClock(kernel, longest_gap=5.0)
    before = clock()
    for step in steps:
        kernel.now += step
        after = clock()
        assert 0.0 <= after - before <= min(step, 5.0) + 1e-6
        before = after


def test_a_signal_handler_may_read_it_in_the_middle_of_a_reading() -> None:
    handled = list[float]()

    def interrupted() -> float:
        if len(handled) == 1:
            handled.append(0.0)
            handled.append(clock())
        return 7.0

    clock = AwakeClock(interrupted)
    handled.append(clock())
    assert within(10.0, clock) == 7.0
    assert handled == [7.0, 0.0, 7.0]
