"""From near pairs to columns: the nearest row, clusters, and the nearest text of other sets.

Invariants: pure. A cluster is a connected component: rows that a chain of near-duplicates joins. Of equally
near rows the one with the smallest row_id counts.
"""

from dataclasses import dataclass

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
        return Pairs(
            left=self.left[chosen], right=self.right[chosen], distances=self.distances[chosen]
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest:
    """Of each text: the distance of the nearest other one, and its place; 1 and NOWHERE for none known."""

    distances: Float32s
    places: Int64s


def nearest_of(pairs: Pairs, count: int) -> Nearest:
    """Of `count` texts the nearest one, among pairs."""
    one = np.concatenate([pairs.left, pairs.right])
    other = np.concatenate([pairs.right, pairs.left])
    order = np.lexsort((other, np.concatenate([pairs.distances, pairs.distances]), one))
    one, other = one[order], other[order]
    texts, first = np.unique(one, return_index=True)
    distances = np.ones(count, np.float32)
    places = np.full(count, NOWHERE, np.int64)
    distances[texts] = np.concatenate([pairs.distances, pairs.distances])[order][first]
    places[texts] = other[first]
    return Nearest(distances=distances, places=places)


def clusters_of(left: Int64s, right: Int64s, count: int) -> Int64s:
    """Of each of `count` texts the smallest place in its cluster, which these pairs join."""
    roots = list(range(count))

    def root(place: int) -> int:
        while roots[place] != place:
            roots[place] = roots[roots[place]]
            place = roots[place]
        return place

    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        first, second = sorted((root(one), root(other)))
        roots[second] = first
    return np.array([root(place) for place in range(count)], np.int64)


def repeat_counts(clusters: Int64s) -> npt.NDArray[np.int32]:
    """Of each text how many texts of its cluster come before it: 0 for the one to keep."""
    order = np.argsort(clusters, kind="stable")
    ordered = clusters[order]
    first = np.searchsorted(ordered, ordered, "left")
    counts = np.empty(len(clusters), np.int32)
    counts[order] = np.arange(len(clusters)) - first
    return counts
