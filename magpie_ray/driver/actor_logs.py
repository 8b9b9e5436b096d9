"""The last lines that a lost actor wrote to its log, on whichever node the log lies."""

import logging
import re
import time
from collections import deque
from functools import partial
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from magpie_ray.utils.background import within
from magpie_ray.worker.events import Placed

log = logging.getLogger(__name__)

_TAIL_BYTES = 64 * 1024
_LINES = 12
_LINE_CHARACTERS = 300
# The job's loop waits for a log on another node: only briefly, and not for the logs of a hundred actors.
_REMOTE_SECONDS, _REMOTE_EVERY_SECONDS = 5.0, 30.0
# Lines of this project's actors when all is well, and Ray's own markers.
_ROUTINE = re.compile(r' (INFO|DEBUG) |^{"level": "(INFO|DEBUG)"|^:(job_id|actor_name|task_name):')


class ActorLogs:
    """Reads the ends of actors' logs: a file on this machine, or through a Ray task on another node."""

    def __init__(self) -> None:
        self._last_task = -_REMOTE_EVERY_SECONDS

    def of(self, place: Placed) -> list[str]:
        """Up to twelve lines about what went wrong; none when the log can't be read."""
        # The file's name holds the worker's id: no other machine has a file of that name.
        text = tail_of(place.log_path) if Path(place.log_path).exists() else self._from_node(place)
        lines = (_printable(line) for line in text.splitlines() if not _ROUTINE.search(line))
        return list(deque((line for line in lines if line), _LINES))

    def _from_node(self, place: Placed) -> str:
        if time.monotonic() - self._last_task < _REMOTE_EVERY_SECONDS:
            return ""
        self._last_task = time.monotonic()
        try:
            return within(_REMOTE_SECONDS, partial(_tail_from, place))
        except (RayError, TimeoutError) as exc:  # the node is gone, or too busy
            log.debug("no log of process %d on %s: %s", place.pid, place.host, exc)
            return ""


def _tail_from(place: Placed) -> str:
    """May block while the head does not answer."""
    on_node = NodeAffinitySchedulingStrategy(place.node_id, soft=False)
    reading = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=on_node)(tail_of)
    text: str = ray.get(reading.remote(place.log_path), timeout=_REMOTE_SECONDS)
    return text


def tail_of(log_path: str) -> str:
    """The end of a file, as text; "" where it can't be read."""
    path = Path(log_path)
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError as exc:
        log.debug("no log at %s: %s", path, exc)
        return ""


def _printable(line: str) -> str:
    """The line without characters that could move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in line).rstrip()[:_LINE_CHARACTERS]
