"""Which cluster is connected to, and what is refused at once; SIGINT and SIGTERM of a running job."""

import contextlib
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from magpie_ray.driver.connect import Patience, choose_address, ray_session, stop_signals
from magpie_ray.errors import (
    ClusterLostError,
    ClusterStartError,
    InterruptedJobError,
    MachineLimitError,
    PreflightError,
    StorageError,
)
from magpie_ray.utils.background import still_waits


@pytest.fixture
def nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that another test of this process has given up may not have returned yet."""
    monkeypatch.setattr("magpie_ray.driver.connect.still_waits", lambda: False)


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
    with caplog.at_level("INFO"):
        assert choose_address(None, started_here=lambda: dead_address) is None
    [record] = caplog.records
    assert record.levelname == "INFO", "each `ray start` that has ended leaves its address behind"
    assert f"at {dead_address}, has ended" in record.getMessage()


def test_a_recorded_address_that_this_machine_has_no_longer_costs_no_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a change of networks: nobody refuses the connection."""
    waits = []

    def silent(_: object, *, timeout: float) -> None:
        waits.append(timeout)
        raise TimeoutError

    monkeypatch.setattr("socket.create_connection", silent)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert choose_address(None, started_here=lambda: "192.0.2.7:6379") is None
    assert sum(waits) <= 1


def test_a_cluster_that_listens_on_this_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert choose_address(None, started_here=lambda: address) == address


@pytest.mark.usefixtures("nothing_waits")
def test_local_is_a_cluster_of_ones_own_even_where_one_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dict[str, object]()
    monkeypatch.setattr("ray.init", lambda **options: asked.update(options))
    with ray_session("local") as is_own:
        assert is_own
    assert (asked["address"], asked["include_dashboard"]) == ("local", False)


@pytest.mark.usefixtures("nothing_waits")
@pytest.mark.parametrize("failures", [1, 2])
def test_a_local_cluster_that_does_not_start_in_time_gets_a_second_try(
    monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    tries = []

    def init(**_: object) -> None:
        tries.append("init")
        if tries.count("init") <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: tries.append("shutdown"))
    if failures == 1:
        with ray_session("local") as is_own:
            assert is_own
    else:
        with pytest.raises(
            ClusterStartError, match=r"timed out during startup.*`ray start --head`"
        ) as caught:
            ray_session("local").__enter__()
        assert caught.value.exit_code == 1
    assert tries[:3] == ["init", "shutdown", "init"]


@pytest.mark.usefixtures("nothing_waits")
def test_a_folder_too_deep_for_rays_sockets_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def init(**_: object) -> None:
        tries.append(True)
        raise OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /deep")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/a/deep/folder")
    with pytest.raises(PreflightError, match=r"below /a/deep/folder, .*: set TMPDIR to a short one"):
        ray_session("local").__enter__()
    assert len(tries) == 1


def test_a_full_disk_below_rays_session_is_told_before_ray_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    monkeypatch.setattr("ray.init", lambda **_: asked.append(True))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(MachineLimitError, match=rf"{tmp_path} is full \(1 MiB are free\).*TMPDIR"):
        ray_session("local").__enter__()
    assert not asked


def test_a_disk_that_fills_up_while_ray_starts_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def init(**_: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/ray/session_1")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with pytest.raises(MachineLimitError, match=r"/tmp/ray/session_1.*set TMPDIR to a folder") as caught:
        ray_session("local").__enter__()
    assert "\n" not in str(caught.value)


def test_a_hangup_that_nohup_has_ignored_stays_ignored() -> None:
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop_requested:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop_requested()
    finally:
        signal.signal(signal.SIGHUP, usual)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_is_a_question_first_and_an_interrupt_the_second_time(
    number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    usual = signal.default_int_handler
    # Tests may run under nohup, which has SIGHUP ignored.
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, usual)))
    begun = []
    with stop_signals(lambda: begun.append(True)) as stop_requested:
        assert not stop_requested()
        os.kill(os.getpid(), number)
        assert stop_requested()
        assert begun == [True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == usual


def stopped_while_storage_fails(*signals: signal.Signals) -> None:
    with stop_signals():
        for number in signals:
            os.kill(os.getpid(), number)
        raise StorageError("Could not write the manifest: no reply came in the time that was left.")


def test_a_store_that_has_no_time_left_after_a_signal_is_an_interrupted_job() -> None:
    with pytest.raises(InterruptedJobError, match=r"no reply came.*same command again to resume"):
        stopped_while_storage_fails(signal.SIGTERM)
    with pytest.raises(StorageError):
        stopped_while_storage_fails()


def test_an_address_with_a_scheme_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = []

    def note(address: str, **_: object) -> None:
        addresses.append(address)
        raise ValueError("a dashboard's address")

    monkeypatch.setattr("ray.init", note)
    with pytest.raises(PreflightError, match="a dashboard's address"), ray_session("http://127.0.0.1:1"):
        pass
    assert addresses == ["http://127.0.0.1:1"]


def test_a_session_is_shut_down_however_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.shutdown", lambda: ends.append("shut down"))
    for error in (ClusterLostError("the head is gone"), KeyboardInterrupt(), None):
        with contextlib.suppress(ClusterLostError, KeyboardInterrupt), ray_session("local"):
            if error:
                raise error
    assert ends == ["shut down"] * 3


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """What a call to a frozen process is: it returns when the test is over."""
    free = threading.Event()
    yield lambda **_: free.wait() and None
    free.set()
    while still_waits():
        pass


def test_a_cluster_that_never_lets_go_keeps_neither_the_result_nor_the_next_exit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, never: Callable[..., None]
) -> None:
    unregistered = []
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.shutdown", never)
    monkeypatch.setattr("atexit.unregister", unregistered.append)
    with ray_session("local", patience=Patience(shutdown=0.01)):
        result = "complete"
    assert result == "complete"
    assert unregistered == [never]
    assert "is left as it is" in caplog.text
    with pytest.raises(PreflightError, match="restart the process"), ray_session("local"):
        pass


def test_a_head_that_accepts_a_connection_and_never_answers_is_refused(
    monkeypatch: pytest.MonkeyPatch, never: Callable[..., None]
) -> None:
    monkeypatch.setattr("ray.init", never)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(PreflightError, match=f"no Ray cluster at {address}: no answer for 0 s"),
            ray_session(address, patience=Patience(init=0.01)),
        ):
            pass
