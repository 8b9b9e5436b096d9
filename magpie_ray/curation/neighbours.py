"""From near pairs to columns: the nearest row, clusters, and the nearest text of other sets.

Invariants: pure. A cluster is a connected component: rows that a chain of near-duplicates joins. Of equally
near rows the one with the smallest row_id counts.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from magpie_ray.curation.corpus import Int64s

Float32s = npt.NDArray[np.float32]

# No row, in arrays of row ids.
NOWHERE = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Pairs of texts, by their places among all texts. distances: of each pair, at most a horizon."""

    left: Int64s
    right: Int64s
    distances: Float32s

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Pairs":
        """Some of the pairs."""
        return Pairs(left=self.left[chosen], right=self.right[chosen], distances=self.distances[chosen])


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest:
    """Of each text: the distance of the nearest other one, and its place; 1 and NOWHERE for none known."""

    distances: Float32s
    places: Int64s

    @classmethod
    def unknown(cls, count: int) -> Self:
        """Of `count` texts, before any is compared."""
        return cls(distances=np.ones(count, np.float32), places=np.full(count, NOWHERE, np.int64))

    def take_nearer(self, other: Self) -> None:
        """Take what is nearer in the other, or as near with a smaller place; both are of the same texts."""
        is_nearer = (other.distances < self.distances) | (
            (other.distances == self.distances) & (other.places < self.places)
        )
        is_nearer &= other.places != NOWHERE
        self.distances[is_nearer] = other.distances[is_nearer]
        self.places[is_nearer] = other.places[is_nearer]


def nearest_of(pairs: Pairs, count: int) -> Nearest:
    """Of `count` texts the nearest one, among pairs."""
    one = np.concatenate([pairs.left, pairs.right])
    other = np.concatenate([pairs.right, pairs.left])
    order = np.lexsort((other, np.concatenate([pairs.distances, pairs.distances]), one))
    one, other = one[order], other[order]
    texts, first = np.unique(one, return_index=True)
    nearest = Nearest.unknown(count)
    nearest.distances[texts] = np.concatenate([pairs.distances, pairs.distances])[order][first]
    nearest.places[texts] = other[first]
    return nearest


class UnionFind:
    """Clusters that grow as pairs join them."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count)

    def join(self, left: Int64s, right: Int64s) -> None:
        """Join the clusters of each pair."""
        roots = self.roots()
        pairs = np.sort(np.stack([roots[left], roots[right]], axis=1), axis=1)
        for one, other in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist():
            first, second = sorted((self._root(one), self._root(other)))
            self._parents[second] = first

    def roots(self) -> Int64s:
        """Of each text the smallest place in its cluster."""
        while True:
            higher = self._parents[self._parents]
            if np.array_equal(higher, self._parents):
                return self._parents.copy()
            self._parents = higher

    def _root(self, place: int) -> int:
        while (parent := int(self._parents[place])) != place:
            self._parents[place] = self._parents[parent]
            place = parent
        return place


def repeat_counts(clusters: Int64s) -> npt.NDArray[np.int32]:
    """Of each text how many texts of its cluster come before it: 0 for the one to keep."""
    order = np.argsort(clusters, kind="stable")
    ordered = clusters[order]
    first = np.searchsorted(ordered, ordered, "left")
    counts = np.empty(len(clusters), np.int32)
    counts[order] = np.arange(len(clusters)) - first
    return counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """All rows in order of (set, row_id), and the items of the search: rows that are equal are one item.

    items: of each row its item. first: of each item its first row. Items are in the order of these.
    """

    sets: npt.NDArray[np.int32]
    row_ids: Int64s
    items: Int64s
    first: Int64s


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbours:
    """Of each row, in order of row_id, what is near; NOWHERE for a row id where nothing near is known.

    distances, similar: of the nearest other row; 1 and NOWHERE for none. repeats: how many rows of its
    cluster come before it. against_*: of the nearest text of other sets, with its row_id and the number of
    its set, from 1.
    """

    row_ids: Int64s
    distances: Float32s
    similar: Int64s
    repeats: npt.NDArray[np.int32]
    against_distances: Float32s
    against: Int64s
    against_sets: npt.NDArray[np.int32]


def items_of(keys: npt.NDArray[np.uint64]) -> tuple[Int64s, Int64s]:
    """The first row of each item, and the item of each row. keys: of rows; equal rows have the same."""
    _, first, items = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[items]


def neighbours_of(rows: Rows, *, inner: Nearest, outer: Nearest, clusters: Int64s) -> Neighbours:
    """From items to rows. inner: of each item the nearest one of set 0; outer: of the other sets.

    clusters: of each item the smallest item of its cluster.
    """
    count = int(np.searchsorted(rows.sets, 1))
    items = rows.items[:count]
    distances, similar = _nearest_rows(inner, items, rows.first)
    against = outer.places[items]
    is_near = against != NOWHERE
    return Neighbours(
        row_ids=rows.row_ids[:count],
        distances=distances,
        similar=np.where(similar == NOWHERE, NOWHERE, rows.row_ids[similar]),
        repeats=repeat_counts(clusters[items]),
        against_distances=outer.distances[items],
        against=np.where(is_near, rows.row_ids[rows.first[against]], NOWHERE),
        against_sets=np.where(is_near, rows.sets[rows.first[against]], 0).astype(np.int32),
    )


def _nearest_rows(near: Nearest, items: Int64s, first: Int64s) -> tuple[Float32s, Int64s]:
    """The distance and the place of the nearest row of each row, given those of items."""
    distances = near.distances[items]
    similar = np.where(near.places[items] == NOWHERE, NOWHERE, first[near.places[items]])
    order = np.argsort(items, kind="stable")
    ordered = items[order]
    is_repeat = np.diff(ordered, prepend=-1) == 0
    # The nearest row of a repeat is the first one; that of the first one is the second.
    twins = np.full(len(items), NOWHERE, np.int64)
    twins[order[is_repeat]] = first[ordered[is_repeat]]
    is_second = is_repeat & ~np.roll(is_repeat, 1)
    twins[first[ordered[is_second]]] = order[is_second]
    has_twin = twins != NOWHERE
    is_nearer = has_twin & ((distances > 0) | (twins < similar))
    return np.where(has_twin, np.float32(0), distances), np.where(is_nearer, twins, similar)
