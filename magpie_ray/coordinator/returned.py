"""Partitions that came back from lost workers: they are done first, and on a node on which they did not fail.

Invariants: a worker gets such a partition on a node on which it failed only where there is no other node.
Taking one costs no more with ten thousand partitions, because they are kept by the nodes they failed on.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set

from magpie_ray.types import Partition


class ReturnedPartitions:
    """Partitions grouped by the nodes on which they failed, the last to return first."""

    def __init__(self) -> None:
        self._groups: dict[frozenset[str], deque[Partition]] = {}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Partition]:
        return (partition for group in self._groups.values() for partition in group)

    def put(self, partitions: Iterable[Partition], failed_on: frozenset[str]) -> None:
        """Add partitions that failed on these nodes, in front: what fails every time is to show soon."""
        added = list(partitions)
        if added:
            self._groups.setdefault(failed_on, deque()).extendleft(reversed(added))
            self._number += len(added)

    def take(self, node: str) -> Partition | None:
        """A partition that has not failed on the node."""
        return self._pop(next((tried for tried in self._groups if node not in tried), None))

    def take_anywhere(self, nodes: Set[str]) -> Partition | None:
        """A partition that has failed on all of the nodes."""
        return self._pop(next((tried for tried in self._groups if nodes <= tried), None))

    def cut(self, uncovered: Callable[[Partition], list[Partition]]) -> None:
        """Replace every partition by what is left of it."""
        groups = {
            tried: deque(h for p in group for h in uncovered(p)) for tried, group in self._groups.items()
        }
        self._groups = {tried: group for tried, group in groups.items() if group}
        self._number = sum(map(len, self._groups.values()))

    def _pop(self, tried: frozenset[str] | None) -> Partition | None:
        if tried is None:
            return None
        group = self._groups[tried]
        partition = group.popleft()
        if not group:
            del self._groups[tried]
        self._number -= 1
        return partition
