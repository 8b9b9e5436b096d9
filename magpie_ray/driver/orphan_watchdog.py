"""No process that an engine started outlives the process that holds the engine.

vLLM runs engines over several GPUs, and others on request, in child processes. Orphans among them would keep
GPU memory from the engine that replaces theirs. Ray 2.60 kills an actor's process group 0.3 s after the actor
was killed, and its children when the actor ends in order. Measured on Linux, Ray leaves alive or behind:

- shared memory, in every case, because Ray kills Python's resource tracker together with its users;
- a child in a session of its own, when the actor is killed by SIGKILL;
- grandchildren, when the node's raylet dies, and every child, when raylet and actor are killed at once;
- every child, when the actor is killed by SIGKILL and RAY_process_group_cleanup_enabled is 0.

Invariant after `watch_over_children()`: however this process ends, every process that it started afterwards,
and every descendant of those, is killed within seconds, and no other process is. A mark in their environment
identifies them; it is inherited, and stays when a parent has died. Linux shows the environment that a process
was executed with, so a fork of this very process that executes nothing has no mark: vLLM makes no such fork
in a Ray actor. The watchdog is no child of the actor and has a session of its own, because Ray kills an
actor's children and its group. It watches before the function returns, and ends when its work is done.

This file runs as a script and imports nothing of this project, so that a watchdog takes at most 15 MB.
"""

import logging
import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress

import psutil

log = logging.getLogger(__name__)

# In the environment of every process that is watched over.
MARK = "MAGPIE_RAY_CHILD_OF"
# How often the watchdog checks that the process lives; a check takes 20 microseconds.
_LOOK_SECONDS = 0.05
# The watchdog ends when it has found no child for so long. A child that was being started when the process
# died has its mark by then.
QUIET_SECONDS = 2.0
_PAUSE_SECONDS = 0.1
# Python's resource tracker removes shared memory once all its users are gone, and then ends by itself, unless
# it is killed first.
_TRACKER = "multiprocessing.resource_tracker"
TRACKER_SECONDS = 5.0
# A child that can't be killed, because a call into a device driver never returns, is not waited for.
_GIVE_UP_SECONDS = 60.0


def watch_over_children() -> None:
    """From now on every process that this one starts is killed when this one ends, for whatever reason.

    Call it once in a process, before it starts a child that matters. Takes 0.1 s.
    """
    token = uuid.uuid4().hex
    command = [sys.executable, "-P", __file__, str(os.getpid()), token]
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    null = subprocess.DEVNULL
    # Returns when the watchdog watches.
    subprocess.run(command, env=environment, stdin=null, stdout=null, start_new_session=True, check=True)
    os.environ[MARK] = token


def _watch(pid: int, token: str) -> None:
    """Wait until the process is gone, then kill every process whose environment has its token."""
    process = psutil.Process(pid)
    if os.fork():
        os._exit(0)  # the caller goes on, and the watchdog is no child of it
    while _lives(process):
        time.sleep(_LOOK_SECONDS)
    gone = quiet_since = now = time.monotonic()
    killed = set[psutil.Process]()
    while now < min(quiet_since + QUIET_SECONDS, gone + _GIVE_UP_SECONDS):
        for child in _marked(token):
            quiet_since = now
            if child not in killed and (now > gone + TRACKER_SECONDS or not _is_tracker(child)):
                _kill(child, started_by=pid)
                killed.add(child)
        time.sleep(_PAUSE_SECONDS)
        now = time.monotonic()


def _lives(process: psutil.Process) -> bool:
    # Process.wait would count a zombie, which its own parent has not collected yet, as alive.
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _marked(token: str) -> list[psutil.Process]:
    # An unreadable environ is None: another user's process, or one that is ending.
    processes = psutil.process_iter(["environ"])
    return [process for process in processes if (process.info["environ"] or {}).get(MARK) == token]


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return _TRACKER in " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return False


def _kill(process: psutil.Process, *, started_by: int) -> None:
    with suppress(psutil.Error):  # it has ended
        name = process.name()
        process.kill()
        log.warning("killed %s (process %d), which had outlived process %d", name, process.pid, started_by)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    _watch(int(sys.argv[1]), sys.argv[2])
