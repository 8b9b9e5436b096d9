"""What the driver does before and around a job on Ray."""

import os
import signal
import socket
from pathlib import Path

import pytest

from magpie_ray import driver
from magpie_ray.config import load_config
from magpie_ray.errors import PreflightError


@pytest.fixture
def dead_address() -> str:
    """host:port where nothing listens: bound, never listened on, and free again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_cluster_address_that_does_not_answer_is_refused_at_once(tmp_path: Path, dead_address: str) -> None:
    keys = ["num_rows=1", f"output.path={tmp_path / 'build'}", f"cluster.address={dead_address}"]
    with pytest.raises(PreflightError, match=f"no Ray cluster at {dead_address}.*ray start --head"):
        driver.generate(load_config(None, keys))
    assert not (tmp_path / "build/_magpie/build.json").exists()


def test_a_cluster_that_died_on_this_machine_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, dead_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver, "read_ray_address", lambda: dead_address)
    assert driver._cluster_on_this_machine() is None
    assert "is gone" in caplog.text


def test_a_cluster_that_listens_on_this_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(driver, "read_ray_address", lambda: address)
        assert driver._cluster_on_this_machine() == address


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_is_a_question_first_and_acts_as_usual_the_second_time(number: signal.Signals) -> None:
    usual = signal.getsignal(number)
    with driver._stop_signals() as stop_requested:
        assert not stop_requested()
        os.kill(os.getpid(), number)
        assert stop_requested()
        assert signal.getsignal(number) == usual
    assert signal.getsignal(number) == usual
