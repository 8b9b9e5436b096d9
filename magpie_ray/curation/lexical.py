"""Near-duplicates by words: texts in, the nearest rows and clusters out.

Texts with the same words are one item of the search, so a text that stands there a thousand times costs as
much as one. Invariants: the result is a function of the texts and their row ids. It does not depend on the
order in which they are read, on threads or on the machine.
"""

from collections.abc import Callable, Iterable

import numpy as np

from magpie_ray.curation.candidates import HORIZON, pairs_of
from magpie_ray.curation.corpus import grams_of, mixed, read_corpus
from magpie_ray.curation.distance import distances
from magpie_ray.curation.minhash import signatures_of
from magpie_ray.curation.neighbours import (
    Neighbours,
    Pairs,
    Rows,
    UnionFind,
    items_of,
    nearest_of,
    neighbours_of,
)
from magpie_ray.curation.words import Words


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
    found = distances(unique, left, right, most=HORIZON)
    pairs = Pairs(left=left, right=right, distances=found).where(found <= HORIZON)
    is_inner = unique.sets[right[found <= HORIZON]] == 0  # the right text of a pair is never of a smaller set
    inner, outer = pairs.where(is_inner), pairs.where(~is_inner)
    duplicates = inner.where(inner.distances <= np.float32(threshold))
    union = UnionFind(len(unique))
    union.join(duplicates.left, duplicates.right)
    return neighbours_of(
        Rows(sets=corpus.sets, row_ids=corpus.row_ids, items=items, first=first),
        inner=nearest_of(inner, len(unique)),
        outer=nearest_of(outer, len(unique)),
        clusters=union.roots(),
    )
