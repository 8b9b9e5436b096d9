"""Nothing that an engine started outlives the process that holds the engine.

vLLM runs engines of several GPUs, and others on request, in child processes. When the process that holds the
engine is killed, they may stay and keep the GPU's memory from the engine that is to replace it. Ray 2.60 ends
them by their process group, 0.3 s later; with that setting off, or in a session of their own, they stay.

What always holds after `watch_over_children()`: however this process ends, every process that it started
afterwards, and all that those started, are killed within seconds, and nobody else is. A mark in their
environment tells who they are; it is inherited, and stays when their parent has died. Linux shows the
environment that a process was executed with, so a fork of this very process that executes nothing has no
mark: vLLM makes none in a Ray actor. The watchdog is nobody's child and has a session of its own, since Ray
kills an actor's children and its group. It is there before the function returns, waits for the process's end,
and leaves when its work is done.

The file is run by itself and imports nothing of this project, so that a watchdog takes no more than 15 MB.
"""

import logging
import os
import subprocess
import sys
import time
import uuid

import psutil

log = logging.getLogger(__name__)

# In the environment of every process that is watched over.
MARK = "MAGPIE_RAY_CHILD_OF"
# How often the watchdog looks whether the process lives: 20 microseconds a look.
_LOOK_SECONDS = 0.05
# Found nobody for this long: whoever was being started when the process died has its mark by then.
_QUIET_SECONDS = 2.0
_PAUSE_SECONDS = 0.1
# Python's resource tracker removes shared memory when all who used it are gone, and then leaves by itself,
# unless somebody kills it first, as Ray does 0.3 s after an actor's death.
_TRACKER = "multiprocessing.resource_tracker"
_TRACKER_SECONDS = 5.0
# What can't be killed, in a driver's call that never ends, is not waited for.
_GIVE_UP_SECONDS = 60.0


def watch_over_children() -> None:
    """From now on every process started by this one is killed when this one ends, for whatever reason.

    Once in a process, before it starts any that matters. Takes 0.1 s.
    """
    token = uuid.uuid4().hex
    command = [sys.executable, "-P", __file__, str(os.getpid()), token]
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    # It returns when the watchdog watches.
    null = subprocess.DEVNULL
    subprocess.run(command, env=environment, stdin=null, stdout=null, start_new_session=True, check=True)
    os.environ[MARK] = token


def _watch(pid: int, token: str) -> None:
    """The watchdog's life: wait until the process is gone, then kill those that carry its token."""
    process = psutil.Process(pid)
    if os.fork():
        os._exit(0)  # so that it is nobody's child; whoever started this goes on
    while _lives(process):
        time.sleep(_LOOK_SECONDS)
    gone = quiet_since = now = time.monotonic()
    killed = set[psutil.Process]()
    while now < min(quiet_since + _QUIET_SECONDS, gone + _GIVE_UP_SECONDS):
        for child in _marked(token):
            quiet_since = now
            if child not in killed and (now > gone + _TRACKER_SECONDS or not _is_tracker(child)):
                _kill(child, started_by=pid)
                killed.add(child)
        time.sleep(_PAUSE_SECONDS)
        now = time.monotonic()


def _lives(process: psutil.Process) -> bool:
    # Not Process.wait: what is dead and not yet collected by its own parent counts as alive there.
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _marked(token: str) -> list[psutil.Process]:
    # An environ that may not be read is None: another user's process, or one that is ending.
    processes = psutil.process_iter(["environ"])
    return [process for process in processes if (process.info["environ"] or {}).get(MARK) == token]


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return _TRACKER in " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return False


def _kill(process: psutil.Process, *, started_by: int) -> None:
    try:
        name = process.name()
        process.kill()
    except psutil.Error as exc:  # it has ended
        log.debug("%s", exc)
    else:
        log.warning("killed %s (process %d), which has outlived process %d", name, process.pid, started_by)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    _watch(int(sys.argv[1]), sys.argv[2])
