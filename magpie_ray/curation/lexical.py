"""Near-duplicates by words: texts in, the nearest rows and clusters out.

Texts with the same words are one item of the search, so a text that stands there a thousand times costs as
much as one. Invariants: the result is a function of the texts and their row ids. It does not depend on the
order in which they are read, on threads or on the machine.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from magpie_ray.curation.candidates import HORIZON, pairs_of
from magpie_ray.curation.corpus import Corpus, Int64s, grams_of, mixed, read_corpus
from magpie_ray.curation.distance import distances
from magpie_ray.curation.minhash import signatures_of
from magpie_ray.curation.neighbours import (
    NOWHERE,
    Float32s,
    Nearest,
    Pairs,
    clusters_of,
    nearest_of,
    repeat_counts,
)
from magpie_ray.curation.words import Words



@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbours:
    """Of each row, in order of row_id, what is near; NOWHERE in place of a row id where nothing near is known.

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


def find_neighbours(texts: Iterable[tuple[int, int, Words]], *, threshold: float) -> Neighbours:
    """Search texts, as (set, row_id, words) in any order, for near-duplicates.

    Set 0 is the data set; the others are what it is compared with. threshold: the largest distance of
    near-duplicates, at most HORIZON.
    """
    assert 0 <= threshold <= HORIZON, threshold
    corpus = read_corpus(texts)
    grams = grams_of(corpus.vocabulary)
    same = mixed(corpus.bags(grams.words) + mixed(corpus.facts)) + corpus.sets.astype(np.uint64)
    _, first, items = np.unique(same, return_index=True, return_inverse=True)
    order = np.argsort(first)
    first, items = first[order], np.argsort(order)[items]
    unique = corpus.take(first)
    left, right = pairs_of(unique, grams, signatures_of(unique, grams))
    found = distances(unique, left, right, most=HORIZON)
    pairs = Pairs(left=left, right=right, distances=found).where(found <= HORIZON)
    return _expanded(corpus, unique, items, first, pairs, threshold)


def _expanded(
    corpus: Corpus, unique: Corpus, items: Int64s, first: Int64s, pairs: Pairs, threshold: float
) -> Neighbours:
    """From items to the rows that they stand for. items: of each text its item; first: the item's first text."""
    rows = int(np.searchsorted(corpus.sets, 1))
    is_inner = unique.sets[pairs.right] == 0  # a pair's right text is never of a smaller set
    inner, outer = pairs.where(is_inner), pairs.where(~is_inner)
    near = nearest_of(inner, len(unique))
    theirs = nearest_of(outer, len(unique))
    duplicates = inner.where(inner.distances <= threshold)
    clusters = clusters_of(duplicates.left, duplicates.right, len(unique))
    items = items[:rows]
    distances, similar = _nearest_rows(near, items, first)
    against = theirs.places[items]
    is_near = against != NOWHERE
    return Neighbours(
        row_ids=corpus.row_ids[:rows],
        distances=distances,
        similar=np.where(similar == NOWHERE, NOWHERE, corpus.row_ids[similar]),
        repeats=repeat_counts(clusters[items]),
        against_distances=theirs.distances[items],
        against=np.where(is_near, unique.row_ids[against], NOWHERE),
        against_sets=np.where(is_near, unique.sets[against], 0).astype(np.int32),
    )


def _nearest_rows(near: Nearest, items: Int64s, first: Int64s) -> tuple[Float32s, Int64s]:
    """The distance and the place of the nearest row of each row, given those of items."""
    distances = near.distances[items]
    similar = np.where(near.places[items] == NOWHERE, NOWHERE, first[near.places[items]])
    order = np.argsort(items, kind="stable")
    ordered = items[order]
    is_repeat = np.concatenate([[False], ordered[1:] == ordered[:-1]])
    # The nearest row of a repeat is the first one; that of the first one is the second.
    twins = np.full(len(items), NOWHERE, np.int64)
    twins[order[is_repeat]] = first[ordered[is_repeat]]
    is_second = is_repeat & ~np.concatenate([[False], is_repeat[:-1]])
    twins[first[ordered[is_second]]] = order[is_second]
    has_twin = twins != NOWHERE
    is_nearer = has_twin & ((distances > 0) | (twins < similar))
    return np.where(has_twin, np.float32(0), distances), np.where(is_nearer, twins, similar)
