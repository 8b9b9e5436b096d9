"""The last lines that an actor wrote before it was lost, wherever its node is."""

import logging
import re
import time
from collections import deque
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from magpie_ray.worker.events import Placed

log = logging.getLogger(__name__)

_TAIL_BYTES = 64 * 1024
_LINES = 12
_LINE_CHARACTERS = 300
# The job's loop waits for words from another node: not for long, nor for those of a hundred actors.
_REMOTE_SECONDS, _REMOTE_EVERY_SECONDS = 5.0, 30.0
# What this project's actors tell when all is well, and Ray's own marks.
_EVERYDAY = re.compile(r' (INFO|DEBUG) |^{"level": "(INFO|DEBUG)"|^:(job_id|actor_name|task_name):')


class ActorLogs:
    """Reads the ends of actors' logs: on this machine from the file, elsewhere by a task on that node."""

    def __init__(self) -> None:
        self._asked_remotely = -_REMOTE_EVERY_SECONDS

    def of(self, place: Placed) -> list[str]:
        """Up to twelve lines of what went wrong; none when they can't be had."""
        path = Path(place.log_path)  # with the worker's id in its name: no other machine has the same
        text = tail_of(place.log_path) if path.exists() else self._from_node(place)
        lines = (_printable(line) for line in text.splitlines() if not _EVERYDAY.search(line))
        return list(deque((line for line in lines if line), _LINES))

    def _from_node(self, place: Placed) -> str:
        if time.monotonic() - self._asked_remotely < _REMOTE_EVERY_SECONDS:
            return ""
        self._asked_remotely = time.monotonic()
        there = NodeAffinitySchedulingStrategy(place.node_id, soft=False)
        reading = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(tail_of)
        try:
            text: str = ray.get(reading.remote(place.log_path), timeout=_REMOTE_SECONDS)
        except RayError as exc:  # the node is gone, or too busy
            log.debug("no log of process %d on %s: %s", place.pid, place.host, exc)
            return ""
        return text


def tail_of(log_path: str) -> str:
    """The end of a file; nothing where there is none."""
    path = Path(log_path)
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError as exc:
        log.debug("no log at %s: %s", path, exc)
        return ""


def _printable(line: str) -> str:
    """One line of a log, without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in line).rstrip()[:_LINE_CHARACTERS]
