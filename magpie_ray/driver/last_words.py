"""The last lines that an actor wrote before it died, wherever its node is."""

import logging
import re
from collections import deque
from pathlib import Path

from magpie_ray.worker import Placed

log = logging.getLogger(__name__)

_TAIL_BYTES = 64 * 1024
_LINES = 12
_LINE_CHARACTERS = 300
_TIMEOUT_SECONDS = 10
# What this project's actors tell when all is well, and Ray's own marks.
_EVERYDAY = re.compile(r" INFO |^:(job_id|actor_name|task_name):")


def last_words(where: Placed) -> list[str]:
    """Up to twelve lines of what went wrong, from the process's log; none when it can't be had.

    From the file where this machine has it; elsewhere through that node's agent, which the dashboard asks.
    """
    path = Path(where.log_path)  # with the worker's id in its name: no other machine has the same
    text = _tail_of_file(path) if path.exists() else _tail_through_dashboard(where)
    lines = (_printable(line) for line in text.splitlines() if not _EVERYDAY.search(line))
    return list(deque((line for line in lines if line), _LINES))


def _tail_of_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError as exc:
        log.debug("no log at %s: %s", path, exc)
        return ""


def _tail_through_dashboard(where: Placed) -> str:
    from ray.util.state import get_log
    from ray.util.state.exception import RayStateApiException

    try:
        chunks = get_log(
            node_id=where.node_id,
            filename=Path(where.log_path).name,
            tail=10 * _LINES,
            timeout=_TIMEOUT_SECONDS,
            errors="replace",
            filter_ansi_code=True,
        )
        return "".join(chunks)
    except (RayStateApiException, OSError, RuntimeError, ValueError) as exc:  # no dashboard, or no such node
        log.debug("no log of process %d on %s: %s", where.pid, where.host, exc)
        return ""


def _printable(line: str) -> str:
    """One line of a log, without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in line).rstrip()[:_LINE_CHARACTERS]
