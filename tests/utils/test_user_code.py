"""Whether what a user's code raises is its own failure, or a signal's."""

import signal
import threading

import pytest

from magpie_ray.utils.user_code import user_code

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers() -> object:
    """The handlers of a command line, and the usual ones afterwards."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), ValueError("no")])
def test_whatever_code_raises_by_itself_is_its_own(raised: BaseException) -> None:
    with user_code() as is_its_own:
        assert is_its_own(raised)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_a_signal_raises_is_not(number: signal.Signals) -> None:
    with user_code() as is_its_own:
        with pytest.raises(KeyboardInterrupt) as caught:
            signal.raise_signal(number)
        assert not is_its_own(caught.value)
        assert is_its_own(ValueError("failed all the same"))
    assert [signal.getsignal(each) for each in SIGNALS] == [signal.default_int_handler] * 3


def test_a_handler_that_the_code_sets_stays() -> None:
    def own(number: int, frame: object) -> None: ...

    with user_code():
        signal.signal(signal.SIGTERM, own)
    assert signal.getsignal(signal.SIGTERM) is own


def test_in_other_threads_no_signal_raises_anything() -> None:
    found = []

    def work() -> None:
        with user_code() as is_its_own:
            found.append(is_its_own(KeyboardInterrupt()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]
