"""Connect to the Ray cluster at hand, or start a local one; hear the signals that ask a run to stop.

Invariant: a cluster that does not answer is refused within seconds; Ray itself would wait for minutes.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray._private.utils import read_ray_address
from ray.exceptions import RayError

from magpie_ray.errors import ClusterLostError, InterruptedJobError, PreflightError
from magpie_ray.utils import logs

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0


@contextlib.contextmanager
def ray_session(configured: str | None) -> Iterator[bool]:
    """A connection to a cluster; yields whether the cluster is a local one, to which no nodes come.

    configured: cluster.address, where "local" always starts a local cluster (see choose_address). A
    connection that this process already has is used and stays. PreflightError when there is no such cluster.
    """
    if ray.is_initialized():
        yield False
        return
    address = choose_address(configured)
    if address and address.startswith("ray://"):
        raise PreflightError(
            f"{address} is an address of Ray's client, which can't carry the events of actors: submit the "
            "job to that cluster with `ray job submit`, or give the address of its head, host:6379"
        )
    if address and not answers(address):
        raise _no_cluster(address, "nothing answers there")
    style = logs.current()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",
            logging_level=logging.WARNING,
            log_to_driver=style.verbose and not style.json,
            **({} if address else {"include_dashboard": False}),
        )
    except SystemExit as exc:  # Ray's handler of SIGTERM
        raise InterruptedJobError("stopped before anything had begun; run the same command again") from exc
    except (ConnectionError, RuntimeError, ValueError, RayError) as exc:
        raise _no_cluster(address or "local", f"{exc}{_token_hint() if address else ''}") from exc
    finally:
        # Ray sets a handler for good, whose exit code would not say that the job can be resumed.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    if style.json:
        logs.take_over("ray")
    try:
        yield address is None
    except ClusterLostError:
        raise  # ray.shutdown would wait for a lost head, longer than Ray lets this process live
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields whether a SIGINT or SIGTERM has come, as a function; a second one raises KeyboardInterrupt."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        log.warning("%s: stopping; finished rows are being committed", signal.Signals(number).name)

    try:
        for awaited in (signal.SIGINT, signal.SIGTERM):
            previous[awaited] = signal.signal(awaited, note)
    except ValueError:  # not the main thread, where alone Python handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def choose_address(
    configured: str | None, *, started_here: Callable[[], str] = read_ray_address
) -> str | None:
    """`configured`, RAY_ADDRESS, or the cluster that `ray start` began on this machine; None: start one.

    A cluster of this machine that no longer answers is passed over.
    """
    address = configured or os.environ.get("RAY_ADDRESS")
    if not address and (address := started_here()) and not answers(address):
        log.warning("the Ray cluster that was started here (%s) is gone: starting a local one", address)
        return None
    return None if address == "local" else address or None  # "local" is Ray's own word for a new one


def _token_hint() -> str:
    """What to try when a cluster refuses a connection: Ray does not say that a token was missing."""
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return " (is the token in ~/.ray/auth_token or RAY_AUTH_TOKEN that cluster's?)"
    return " (if it asks for a token: export RAY_AUTH_MODE=token; see docs/one-box.md)"


def _no_cluster(address: str, why: str) -> PreflightError:
    return PreflightError(
        f"no Ray cluster at {address}: {why}. Start one with `ray start --head`, or set RAY_ADDRESS or "
        "cluster.address; without both, and none running here, a local one is started"
    )


def answers(address: str) -> bool:
    """Whether something listens at host:port. True for any other form of address, which Ray looks up."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
