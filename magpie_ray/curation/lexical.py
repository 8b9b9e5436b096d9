"""Near-duplicates by words: texts in, the nearest rows and clusters out.

Texts with the same words are one item of the search, so a text that stands there a thousand times costs as
much as one. Invariants: the result is a function of the texts and their row ids. It does not depend on the
order in which they are read, on threads or on the machine.
"""

from collections.abc import Callable, Iterable

import numpy as np

from magpie_ray.curation.candidates import HORIZON, pairs_of
from magpie_ray.curation.corpus import grams_of, mixed, ranges, read_corpus
from magpie_ray.curation.distance import counts_of, distances
from magpie_ray.curation.minhash import signatures_of
from magpie_ray.curation.neighbours import (
    Nearest,
    Neighbours,
    Pairs,
    Rows,
    UnionFind,
    items_of,
    nearest_of,
    neighbours_of,
)
from magpie_ray.similarity.words import Words

# About 100 bytes for each word of a text.
_PAIRS_AT_ONCE = 200_000


def find_neighbours(
    texts: Iterable[tuple[int, int, Words]],
    *,
    threshold: float,
    on_step: Callable[[str], None] = lambda step: None,
) -> Neighbours:
    """Search texts, as (set, row_id, words) in any order, for near-duplicates.

    Set 0 is the data set; the others are what it is compared with. threshold: the largest distance of
    near-duplicates, at most HORIZON. on_step: hears what is being done.
    """
    assert 0 <= threshold <= HORIZON, threshold
    corpus = read_corpus(texts)
    grams = grams_of(corpus.vocabulary)
    same = mixed(corpus.bags(grams.words) + mixed(corpus.facts)) + corpus.sets.astype(np.uint64)
    first, items = items_of(same)
    unique = corpus.take(first)
    on_step(f"{len(unique):,} different texts are compared")
    left, right = pairs_of(unique, grams, signatures_of(unique, grams))
    on_step(f"{len(left):,} pairs of texts are compared word by word")
    count, counts = len(unique), counts_of(unique)
    inner, outer, union = Nearest.unknown(count), Nearest.unknown(count), UnionFind(count)
    for start, stop in ranges(len(left), _PAIRS_AT_ONCE):
        one, other = left[start:stop], right[start:stop]
        pairs = Pairs(left=one, right=other, distances=distances(unique, one, other, counts, most=HORIZON))
        pairs = pairs.where(pairs.distances <= np.float32(HORIZON))
        is_inner = unique.sets[pairs.right] == 0  # the right text of a pair is never of a smaller set
        inner.take_nearer(nearest_of(pairs.where(is_inner), count))
        outer.take_nearer(nearest_of(pairs.where(~is_inner), count))
        duplicates = pairs.where(is_inner & (pairs.distances <= np.float32(threshold)))
        union.join(duplicates.left, duplicates.right)
    return neighbours_of(
        Rows(sets=corpus.sets, row_ids=corpus.row_ids, items=items, first=first),
        inner=inner,
        outer=outer,
        clusters=union.roots(),
    )
