"""Which cluster is connected to, and what is refused at once; SIGINT and SIGTERM of a running job."""

import os
import signal
import socket

import pytest

from magpie_ray.driver.connect import choose_address, ray_session, stop_signals
from magpie_ray.errors import ClusterLostError, PreflightError


@pytest.fixture
def dead_address() -> str:
    """host:port where nothing listens: bound, never listened on, and free again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("mode", "hint"), [("disabled", "export RAY_AUTH_MODE=token"), ("token", "auth_token")]
)
def test_a_cluster_that_turns_the_driver_away_may_want_a_token(
    monkeypatch: pytest.MonkeyPatch, mode: str, hint: str
) -> None:
    def turned_away(**_: object) -> None:
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr("ray.init", turned_away)
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(PreflightError, match=f"Failed to connect.*{hint}"),
            ray_session(address),
        ):
            pass


def test_a_cluster_that_died_on_this_machine_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, dead_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert choose_address(None, started_here=lambda: dead_address) is None
    assert "is gone" in caplog.text


def test_a_cluster_that_listens_on_this_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert choose_address(None, started_here=lambda: address) == address


def test_local_is_a_cluster_of_ones_own_even_where_one_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dict[str, object]()
    monkeypatch.setattr("ray.init", lambda **options: asked.update(options))
    with ray_session("local") as is_own:
        assert is_own
    assert (asked["address"], asked["include_dashboard"]) == ("local", False)


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


def test_an_address_with_a_scheme_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = []

    def note(address: str, **_: object) -> None:
        addresses.append(address)
        raise ValueError("a dashboard's address")

    monkeypatch.setattr("ray.init", note)
    with pytest.raises(PreflightError, match="a dashboard's address"), ray_session("http://127.0.0.1:1"):
        pass
    assert addresses == ["http://127.0.0.1:1"]


def test_a_session_is_shut_down_also_where_another_cluster_was_lost_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = []
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.shutdown", lambda: ends.append("shut down"))
    try:
        with ray_session("local"):
            raise ClusterLostError("the head is gone")
    except ClusterLostError:
        assert ends == []
        with ray_session("local"):
            pass
    assert ends == ["shut down"]
