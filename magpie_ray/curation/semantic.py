"""Near-duplicates by embeddings: cosine distances of vectors in, the nearest rows and clusters out.

Up to EXACT_ITEMS vectors, all are compared with all, in blocks. Of more, faiss finds NEIGHBOURS of each in an
inverted file, of which it searches the parts that lie nearest. Distances of what it finds are exact, too.

Measured with 20,000 vectors of 384 numbers, in seconds of a core: all pairs 4, faiss 3, usearch (HNSW) 38,
which misses the nearest of 1 in 400. An inverted file does not depend on the order in which threads add
vectors.

Invariants: distances are rounded to six decimals, so that the order in which products are summed does not
show. Rows of the data set whose numbers or code differ are never near; of other sets the texts are not known.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from magpie_ray.curation.corpus import Int64s, UInt64s, mixed, ranges
from magpie_ray.curation.extra import curate_library
from magpie_ray.curation.neighbours import (
    Float32s,
    Nearest,
    Neighbours,
    Rows,
    UnionFind,
    items_of,
    neighbours_of,
)
from magpie_ray.errors import ConfigError

# Time grows with the square: 4 s of a core for 20,000 vectors of 384 numbers, 100 s for 100,000.
EXACT_ITEMS = 100_000
# The nearest few by float32 products, of which exact distances choose the nearest.
NEIGHBOURS = 16

_BLOCK_NUMBERS = 32 << 20
_ROWS_AT_ONCE = 8_192
_DECIMALS = 6
# The product of two items that must not be near.
_APART = -2.0
_MARGIN = 1e-5
# faiss: parts of the index, how many of them a search looks into, vectors that each part is trained with.
_PARTS_PER_ROOT, _PARTS_SEARCHED, _TRAINED = 4, 32, 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Vectors:
    """Vectors of rows of one or more sets, in order of (set, row_id): float32 [rows, dimensions].

    facts: as Words has them; 0 where they are not known.
    """

    sets: npt.NDArray[np.int32]
    row_ids: Int64s
    values: Float32s
    facts: UInt64s


def find_near_vectors(vectors: Vectors, *, threshold: float, exact_items: int = EXACT_ITEMS) -> Neighbours:
    """Search vectors for near-duplicates. threshold: the largest cosine distance of near-duplicates.

    values are normalised in place. ConfigError names a row whose vector has no direction.
    """
    _normalise(vectors)
    same = _hashes(vectors.values) + mixed(vectors.facts + vectors.sets.astype(np.uint64))
    first, items = items_of(same)
    is_unique = len(first) == len(items)
    unique = _Items(
        values=vectors.values if is_unique else vectors.values[first],
        facts=vectors.facts[first],
        ours=int(np.searchsorted(vectors.sets[first], 1)),
    )
    union = UnionFind(len(first))
    inner, outer = (Nearest.unknown(len(first)) for _ in range(2))
    search = _all_pairs if len(first) <= exact_items else _indexed_pairs
    for found in search(unique, 0, unique.ours, 1 - threshold - _MARGIN):
        _keep_nearest(unique, inner, found)
        _join(unique, union, found, threshold)
    for found in search(unique, unique.ours, len(first), 1.0):
        _keep_nearest(unique, outer, found)
    return neighbours_of(
        Rows(sets=vectors.sets, row_ids=vectors.row_ids, items=items, first=first),
        inner=inner,
        outer=outer,
        clusters=union.roots(),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Items:
    """Vectors of length 1 that all differ. ours: how many of them, the first ones, are of set 0."""

    values: Float32s
    facts: UInt64s
    ours: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """Pairs (left, right) of items: the few nearest of each left one, and all that have `alike` products."""

    nearest: tuple[Int64s, Int64s]
    alike: tuple[Int64s, Int64s]
    products: Float32s


def _all_pairs(items: _Items, begin: int, end: int, alike: float) -> Iterator[_Found]:
    """All items of ours with items begin..end-1. alike: the product from which a pair is reported."""
    if begin == end:
        return
    others, few = items.values[begin:end], min(NEIGHBOURS, end - begin)
    for start, stop in ranges(items.ours, max(1, _BLOCK_NUMBERS // (end - begin))):
        products = items.values[start:stop] @ others.T
        if begin == 0:
            products[items.facts[start:stop, None] != items.facts[None, :end]] = _APART
            products[np.arange(stop - start), np.arange(start, stop)] = _APART
        near = np.argpartition(products, end - begin - few, axis=1)[:, -few:].ravel()
        left = np.repeat(np.arange(stop - start), few)
        is_near = products[left, near] > _APART
        row, column = np.nonzero(products >= alike)
        yield _Found(
            nearest=(left[is_near] + start, near[is_near] + begin),
            alike=(row + start, column + begin),
            products=products[row, column],
        )


def _indexed_pairs(items: _Items, begin: int, end: int, alike: float) -> Iterator[_Found]:
    """As _all_pairs, but only NEIGHBOURS of each item are found, and a few of these may be missing."""
    if begin == end:
        return
    faiss = curate_library("faiss")
    others = items.values[begin:end]
    parts = min(int(_PARTS_PER_ROOT * len(others) ** 0.5), max(1, len(others) // _TRAINED))
    index = faiss.index_factory(others.shape[1], f"IVF{parts},Flat", faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(0).permutation(len(others))[: parts * _TRAINED]
    index.train(others[np.sort(chosen)])
    index.add(others)
    index.nprobe = _PARTS_SEARCHED
    few = NEIGHBOURS + 1  # one of them is the item itself
    for start, stop in ranges(items.ours, _ROWS_AT_ONCE):
        products, near = index.search(items.values[start:stop], few)
        left, right = np.repeat(np.arange(start, stop), few), near.ravel().astype(np.int64) + begin
        there = (near.ravel() >= 0) & (right != left)
        if begin == 0:
            there &= items.facts[left] == items.facts[right]
        left, right, products = left[there], right[there], products.ravel()[there]
        is_alike = products >= alike
        yield _Found(
            nearest=(left, right), alike=(left[is_alike], right[is_alike]), products=products[is_alike]
        )


def _keep_nearest(items: _Items, nearest: Nearest, found: _Found) -> None:
    """The nearest right item of each left one, by exact distances."""
    left, right = found.nearest
    distances = _distances(items.values, left, right)
    order = np.lexsort((right, distances, left))
    left, first = np.unique(left[order], return_index=True)
    nearest.distances[left] = distances[order][first]
    nearest.places[left] = right[order][first]


def _join(items: _Items, union: UnionFind, found: _Found, threshold: float) -> None:
    """Join pairs at the threshold. Products tell, but close to the threshold, where exact distances do."""
    left, right = found.alike
    is_sure = found.products >= 1 - threshold + _MARGIN
    unsure = np.flatnonzero(~is_sure)
    near = _distances(items.values, left[unsure], right[unsure]) <= np.float32(threshold)
    chosen = np.sort(np.concatenate([np.flatnonzero(is_sure), unsure[near]]))
    union.join(left[chosen], right[chosen])


def _distances(values: Float32s, left: Int64s, right: Int64s) -> Float32s:
    """Cosine distances of pairs."""
    found = np.empty(len(left), np.float64)
    for start, stop in ranges(len(left), _ROWS_AT_ONCE):
        pairs = (values[places[start:stop]].astype(np.float64) for places in (left, right))
        found[start:stop] = np.einsum("ij,ij->i", *pairs)
    return np.maximum(0, (1 - found).round(_DECIMALS)).astype(np.float32)


def _normalise(vectors: Vectors) -> None:
    for start, stop in ranges(len(vectors.values), _ROWS_AT_ONCE):
        block = vectors.values[start:stop]
        lengths = np.linalg.norm(block.astype(np.float64), axis=1)
        wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(wrong):
            row = vectors.row_ids[start + wrong[0]]
            raise ConfigError(
                f"--embeddings: the vector of row {row} has no direction (its length is "
                f"{lengths[wrong[0]]}): make the embeddings anew"
            )
        block /= lengths[:, None].astype(np.float32)


def _hashes(values: Float32s) -> UInt64s:
    """A hash of each vector."""
    factors = mixed(np.arange(1, values.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
    found = np.empty(len(values), np.uint64)
    for start, stop in ranges(len(values), _ROWS_AT_ONCE):
        bits = np.ascontiguousarray(values[start:stop]).view(np.uint32).astype(np.uint64)
        found[start:stop] = mixed(mixed(bits) * factors).sum(axis=1, dtype=np.uint64)
    return found
