"""SIGINT and SIGTERM of a running job."""

import os
import signal

import pytest

from magpie_ray.driver.stop_signals import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_is_a_question_first_and_an_interrupt_the_second_time(number: signal.Signals) -> None:
    usual = signal.getsignal(number)
    with stop_signals() as stop_requested:
        assert not stop_requested()
        os.kill(os.getpid(), number)
        assert stop_requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == usual
