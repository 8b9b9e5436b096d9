"""Which Ray cluster: connecting to it, or starting one."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

import ray
from ray._private.utils import read_ray_address
from ray.exceptions import RayError

from magpie_ray.config.schema import Config
from magpie_ray.errors import ClusterLostError, InterruptedJobError, PreflightError
from magpie_ray.utils import logs

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0


@contextlib.contextmanager
def ray_session(config: Config) -> Iterator[bool]:
    """Connect to a cluster (cluster.address, RAY_ADDRESS, one on this machine) or start a local one.

    With the address local always the latter. Yields whether it is one of our own, which gets no
    further nodes.
    """
    if ray.is_initialized():
        yield False
        return
    address = config.cluster.address or os.environ.get("RAY_ADDRESS") or _cluster_on_this_machine()
    if address == "local":  # Ray's own word for it
        address = None
    if address and "://" not in address and not answers(address):
        raise _no_cluster(address, "nothing answers there")
    if address and address.startswith("ray://"):
        raise PreflightError(
            f"{address} is an address of Ray's client, which can't carry the events of actors: submit the "
            "job to that cluster with `ray job submit`, or give the address of its head, host:6379"
        )
    style = logs.current()
    try:
        with _own_sigterm():
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
    if style.json:
        logs.take_over("ray")
    try:
        yield address is None
    except ClusterLostError:
        raise  # there is nothing to leave, and trying to takes longer than Ray lets this process live
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray sets a handler of SIGTERM for good, whose exit code would not say that the job can be resumed."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _token_hint() -> str:
    """What to try where a cluster turns a caller away: Ray does not say that it was for want of a token."""
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return " (is the token in ~/.ray/auth_token or RAY_AUTH_TOKEN that cluster's?)"
    return " (if it asks for a token: export RAY_AUTH_MODE=token; see docs/one-box.md)"


def _no_cluster(address: str, why: str) -> PreflightError:
    return PreflightError(
        f"no Ray cluster at {address}: {why}. Start one with `ray start --head`, or set RAY_ADDRESS or "
        "cluster.address; without both, and none running here, a local one is started"
    )


def _cluster_on_this_machine() -> str | None:
    """The cluster that `ray start` began here, unless it is dead: Ray would wait for it for minutes."""
    address = read_ray_address()
    if address and not answers(address):
        log.warning("the Ray cluster that was started here (%s) is gone: starting a local one", address)
        return None
    return address or None


def answers(address: str) -> bool:
    """Whether something listens at host:port; other forms are Ray's to look up."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
