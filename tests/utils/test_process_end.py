"""A guarded process ends after a signal, whatever its main thread does: real processes, real signals."""

import signal
import subprocess
import sys
import time

import pytest

# A main thread that never hears of a signal, as one that is stuck in a library.
_STUCK = """
import signal, sys, threading, time
from magpie_ray.utils.process_end import Guard, allowing

def stuck(*_):
    pass

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stuck)
guard = Guard(lambda text: print(text, flush=True))
with guard.watching(), allowing(ALLOWED):
    print("ready", flush=True)
    COMMAND
"""
_FOR_EVER = "while True: time.sleep(60)"


def ended(*signals: signal.Signals, allowed: float, command: str = _FOR_EVER) -> tuple[int, str, float]:
    """Exit code, last words, and seconds from the first signal to the end."""
    script = _STUCK.replace("ALLOWED", str(allowed)).replace("COMMAND", command)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        for number in signals:
            process.send_signal(number)
            time.sleep(0.1)
        words = process.stdout.read()
        return process.wait(timeout=20), words, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_stuck_ends_when_its_time_is_over_and_says_so(number: signal.Signals) -> None:
    code, words, seconds = ended(number, allowed=0.5)
    assert code == 3
    assert "does not answer in time" in words
    assert "the same command resumes" in words
    assert 0.5 <= seconds < 5


def test_a_second_signal_ends_it_soon() -> None:
    code, _, seconds = ended(signal.SIGTERM, signal.SIGINT, allowed=600)
    assert code == 3
    assert seconds < 10


def test_a_command_that_ends_after_a_signal_keeps_its_exit_code_though_a_thread_never_ends() -> None:
    hangs = "time.sleep(0.5); threading.Thread(target=threading.Event().wait).start(); guard.note_end(1)"
    code, words, seconds = ended(signal.SIGTERM, allowed=600, command=hangs)
    assert (code, words) == (1, "")
    assert seconds < 10


def test_without_a_signal_nothing_is_ended() -> None:
    code, words, _ = ended(allowed=0.0, command="time.sleep(0.5); print('done', flush=True)")
    assert (code, words) == (0, "done\n")
