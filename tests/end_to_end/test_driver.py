"""What the driver does before and around a job on Ray."""

import os
import signal
import socket
from pathlib import Path

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
)

from magpie_ray.config.schema import load_config
from magpie_ray.coordinator.actors import Loss, Lost
from magpie_ray.coordinator.placement import ClusterResources
from magpie_ray.coordinator.run import open_build
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.driver import connect, ray_actors, run_build
from magpie_ray.driver.cluster_watch import ClusterView
from magpie_ray.driver.stop_signals import stop_signals
from magpie_ray.errors import BuildMismatchError, PreflightError
from magpie_ray.preflight import checks
from magpie_ray.preflight.build_spec import resolve_build
from tests.support.builds import memory_storage


@pytest.fixture
def dead_address() -> str:
    """host:port where nothing listens: bound, never listened on, and free again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_cluster_address_that_does_not_answer_is_refused_at_once(tmp_path: Path, dead_address: str) -> None:
    keys = ["num_rows=1", f"output.path={tmp_path / 'build'}", f"cluster.address={dead_address}"]
    with pytest.raises(PreflightError, match=f"no Ray cluster at {dead_address}.*ray start --head"):
        run_build.generate(load_config(None, keys))
    assert not (tmp_path / "build/_magpie/build.json").exists()


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
            connect.ray_session(load_config(None, ["num_rows=1", f"cluster.address={address}"])),
        ):
            pass


def test_a_cluster_that_died_on_this_machine_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, dead_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connect, "read_ray_address", lambda: dead_address)
    assert connect._cluster_on_this_machine() is None
    assert "is gone" in caplog.text


def test_a_cluster_that_listens_on_this_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(connect, "read_ray_address", lambda: address)
        assert connect._cluster_on_this_machine() == address


def test_local_is_a_cluster_of_ones_own_even_where_one_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dict[str, object]()
    monkeypatch.setattr("ray.init", lambda **options: asked.update(options))
    monkeypatch.setattr(connect, "read_ray_address", lambda: "192.0.2.1:6379")
    with connect.ray_session(load_config(None, ["num_rows=1", "cluster.address=local"])) as is_own:
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


def test_a_driver_that_comes_second_takes_the_grid_of_the_first_where_none_was_asked_for() -> None:
    storage = memory_storage()

    def opened(*keys: str) -> tuple[BuildRecord, bool]:
        config = load_config(None, ["engine.device=cpu", *keys])
        return open_build(resolve_build(config), storage, device="cpu", num_actors=1)

    first, is_new = opened("num_rows=1000")
    assert is_new
    assert opened("num_rows=2000") == (first, False)
    with pytest.raises(BuildMismatchError, match=r"output\.rows_per_partition"):
        opened("num_rows=2000", "output.rows_per_partition=7")
    with pytest.raises(BuildMismatchError, match="seed: the build has 0, now 1"):
        opened("num_rows=2000", "seed=1")


NOTHING = ClusterResources(node_cpus=(), node_gpus=())


class AnsweringWatch:
    view = ClusterView(alive=frozenset(), leaving=frozenset(), resources=NOTHING, free="")

    def reachable(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (OutOfMemoryError("no memory left"), Loss.FAILED),
        (ActorUnschedulableError("no such node"), Loss.DIED),
        (ActorDiedError(), Loss.DIED),
        (ActorUnavailableError("for now", None), Loss.NODE),
        (NodeDiedError("gone"), Loss.NODE),
    ],
)
def test_whatever_ray_says_of_an_actor_counts_as_its_loss(
    error: RayError, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(ray_actors.ray, "get", fail)
    workers = object.__new__(ray_actors.RayActors)
    events = iter([None])
    workers._watch, workers._secrets = AnsweringWatch(), frozenset()
    workers._listening, workers._actors = {events: 0}, {0: ray_actors._Actor(None, events, None)}
    told = workers._next_event(events)
    assert isinstance(told, Lost)
    assert type(error).__name__ in told.cause
    assert told.loss == loss


def test_an_engine_that_is_not_installed_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PreflightError, match=r'pip install "magpie-ray\[gpu\]"'):
        checks.check_engine_is_installed()
