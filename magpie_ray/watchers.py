"""Those who watch a job: told how it stands at every turn of its loop, and of each committed partition.

What always holds: they decide nothing, and none of them may hold up the loop.
"""

from collections.abc import Sequence
from typing import Protocol

from magpie_ray.events import Committed
from magpie_ray.snapshot import Snapshot


class Watcher(Protocol):
    """Called by the job's loop, in its thread, more than once a second."""

    def show(self, snapshot: Snapshot) -> None: ...

    def committed(self, slot: int, event: Committed) -> None: ...


class Watchers:
    """Several as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def show(self, snapshot: Snapshot) -> None:
        for watcher in self._watchers:
            watcher.show(snapshot)

    def committed(self, slot: int, event: Committed) -> None:
        for watcher in self._watchers:
            watcher.committed(slot, event)
