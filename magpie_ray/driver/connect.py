"""Connect to the Ray cluster at hand, or start a local one; hear the signals that ask a run to stop.

Invariant: a cluster that does not answer is refused within seconds; Ray itself would wait for minutes.
"""

import atexit
import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray._private import ray_constants
from ray._private.utils import read_ray_address

from magpie_ray.errors import (
    ClusterLostError,
    ClusterStartError,
    InterruptedJobError,
    MachineLimitError,
    PreflightError,
    StorageError,
)
from magpie_ray.utils import logs
from magpie_ray.utils.background import DaemonExecutor, still_waits, within
from magpie_ray.utils.limits import check_room, limit_remedy

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
# To this machine itself: only an address that it has no longer keeps silent.
_CONNECT_HERE_SECONDS = 0.5
_TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
# The variable, and Ray's constant, that have `uv run` start each process of a job.
_BY_UV = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
# Ray's constant that leaves this process its handlers of signals.
_OWN_HANDLERS = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"
# What Ray writes into a session's folder before the first actor starts, and the logs of some hours.
_SESSION_BYTES = 64 << 20
# In Ray's error for a socket below too deep a folder.
_LONG_PATH = "AF_UNIX path length"


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long Ray may take to connect, to let go, and to let go of a cluster that was lost, in seconds.

    A local cluster takes half a minute to start on a busy machine. One that is left behind ends with this
    process, and a connection with it.
    """

    init: float = 120.0
    shutdown: float = 10.0
    # Ray itself ends this process soon after the head is lost.
    shutdown_when_lost: float = 5.0


_USUAL = Patience()


@contextlib.contextmanager
def ray_session(
    configured: str | None,
    *,
    seconds_left: Callable[[], float] = lambda: math.inf,
    patience: Patience = _USUAL,
) -> Iterator[bool]:
    """A connection to a cluster; yields whether the cluster is a local one, to which no nodes come.

    configured: cluster.address, where "local" always starts a local cluster (see choose_address). A
    connection that this process already has is used and stays. PreflightError when there is no such cluster,
    ClusterStartError when a local one does not start. seconds_left: that the end of the session may take; a
    second is always tried.
    """
    if still_waits():
        raise PreflightError(
            "this process still waits for a Ray cluster that does not answer: restart the process (in a "
            "notebook, its kernel)"
        )
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
    # One thread for both: Linux ends the processes of a local cluster with the thread that has started them.
    if not address:
        check_room(_temporary_folder(), nbytes=_SESSION_BYTES)
    log.info("connecting to Ray at %s", address) if address else log.info("starting Ray on this machine")
    calls = DaemonExecutor(name="ray-session")
    _connect(address, patience.init, calls)
    try:
        yield address is None
    except ClusterLostError:
        _disconnect(patience.shutdown_when_lost, calls)
        raise
    except BaseException:
        _disconnect(min(patience.shutdown, max(1.0, seconds_left())), calls)
        raise
    _disconnect(patience.shutdown, calls)


def _connect(address: str | None, seconds: float, calls: DaemonExecutor) -> None:
    """Ray's own connecting, in another thread: a head that hangs accepts connections, too."""
    style = logs.current()
    # Under `uv run` Ray would start every actor with `uv run` in a copy of the current directory, where uv
    # installs the project anew. A node's own environment has the packages.
    if _BY_UV not in os.environ:
        setattr(ray_constants, _BY_UV, False)
    # Ray's C++ code would put a handler of SIGTERM over that of Python, which aborts this process, and none
    # at all after a shutdown. Python's faulthandler, which Ray enables, tells of a crash. Actors stay as
    # they are.
    setattr(ray_constants, _OWN_HANDLERS, True)
    # In its own thread Ray can't set the handler of SIGTERM that it would leave behind, and says so.
    logging.getLogger("ray._private.worker").addFilter(_is_no_word_of_sigterm)
    if not address:  # Ray warns of the token's mode, which matters to clusters that others reach
        logging.getLogger(_TOKEN_LOGGER).addFilter(_is_no_word_of_tokens)
    init = partial(
        ray.init,
        address=address or "local",
        logging_level=logging.WARNING,
        log_to_driver=style.verbose and not style.json,
        **({} if address else {"include_dashboard": False}),
    )
    try:
        within(seconds, init if address else partial(_start, init), executor=calls)
    except Exception as exc:
        if address:
            raise _no_cluster(address, f"{exc}{_token_hint()}") from exc
        if _LONG_PATH in str(exc):
            raise PreflightError(
                f"Ray can't put its sockets below {_temporary_folder()}, whose path is too long (a socket's "
                "has at most 107 bytes): set TMPDIR to a short one, such as TMPDIR=/tmp"
            ) from exc
        if remedy := limit_remedy(str(exc)):
            raise MachineLimitError(f"a local Ray cluster did not start: {exc}. {remedy}") from exc
        raise ClusterStartError(
            f"a local Ray cluster did not start: {exc}. On a busy machine it takes long: stop what else runs "
            "here, or start a cluster with `ray start --head` and run the same command again"
        ) from exc
    if style.json:
        logs.take_over("ray")


def _start(init: Callable[[], object]) -> None:
    """Start a local cluster; once more where it did not come up within the 30 s that Ray gives a node."""
    try:
        init()
    except Exception as exc:
        if _LONG_PATH in str(exc):
            raise
        log.warning("the local Ray cluster did not start (%s): trying once more", exc)
        ray.shutdown()
        init()


def _temporary_folder() -> str:
    """Where Ray puts the sockets of a local cluster."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def _is_no_word_of_tokens(record: logging.LogRecord) -> bool:
    return "Token authentication is" not in record.getMessage()


def _is_no_word_of_sigterm(record: logging.LogRecord) -> bool:
    return "SIGTERM handler is not set" not in record.getMessage()


def _disconnect(seconds: float, calls: DaemonExecutor) -> None:
    """Let go of the cluster. Ray waits for ever for a raylet or a head that hangs: not this process."""
    try:
        within(seconds, ray.shutdown, executor=calls)
    except BaseException as exc:
        atexit.unregister(ray.shutdown)  # it would wait again
        if not isinstance(exc, TimeoutError):
            raise
        log.warning("Ray has not disconnected for %.0f s: the connection is left as it is", seconds)
    calls.shutdown(wait=False)


@contextlib.contextmanager
def stop_signals(begin: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Yields whether SIGINT, SIGTERM or SIGHUP came, as a function; a second one raises KeyboardInterrupt.

    A SIGHUP that is ignored, as under nohup, stays ignored.
    begin: called at the first one. InterruptedJobError when storage fails after it: no time was left.
    """
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        begin()  # first: the log may be a pipe that nobody reads
        log.warning("%s: stopping; finished rows are being committed", signal.Signals(number).name)

    try:
        for awaited in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if awaited == signal.SIGHUP and signal.getsignal(awaited) == signal.SIG_IGN:
                continue
            previous[awaited] = signal.signal(awaited, note)
    except ValueError:  # not the main thread, where alone Python handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    except StorageError as exc:
        if not received:
            raise
        raise InterruptedJobError(
            f"stopped. {exc} Committed rows are kept; run the same command again to resume"
        ) from exc
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def choose_address(
    configured: str | None, *, started_here: Callable[[], str] = read_ray_address
) -> str | None:
    """`configured`, RAY_ADDRESS, or the cluster that `ray start` began on this machine; None: start one.

    A cluster of this machine that no longer answers is passed over: Ray keeps the address of the last one
    that was started here, also when it has ended.
    """
    address = configured or os.environ.get("RAY_ADDRESS")
    if not address and (address := started_here()) and not answers(address, seconds=_CONNECT_HERE_SECONDS):
        log.info("the Ray cluster that was started here, at %s, has ended", address)
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


def answers(address: str, *, seconds: float = _CONNECT_SECONDS) -> bool:
    """Whether something listens at host:port. True for any other form of address, which Ray looks up.

    seconds: how long a host that keeps silent is waited for.
    """
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except OSError:
        return False
    return True
