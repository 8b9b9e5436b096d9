"""How different the texts of a sample are: all compared with all, by their words.

The Magpie paper measures how diverse instructions are by the mean distance of each one's embedding to its
nearest neighbour. Here the distance is that of words: it needs no model, and falls as texts repeat each
other. Both figures depend on the number of texts, because among more texts the nearest one is nearer: compare
only samples of one size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from magpie_ray.similarity.difference import share_that_differs
from magpie_ray.similarity.words import words_of

# What `dedupe` calls near-duplicates by default.
NEAR = 0.05

# No word stands for these numbers: Unicode keeps them for other ends.
_SURROGATES, _FIRST_WORD = range(0xD800, 0xE000), 0x20


@dataclass(frozen=True, kw_only=True, slots=True)
class Diversity:
    """Of so many texts: the share with a near-duplicate among them, and the mean distance to the nearest.

    near_duplicates: 0..1; texts within NEAR whose numbers and code agree. mean_distance: 0..1, by words
    alone: 0 where each text stands there twice, 1 where no two texts share a word.
    """

    texts: int
    near_duplicates: float
    mean_distance: float


def diversity_of(texts: Sequence[str]) -> Diversity:
    """Compare all texts, at least two, with all.

    1,000 texts of 20 words take 0.1 s of a core, of 100 words 0.6 s. A misspelled word is another word here.
    """
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    assert len(texts) > 1, "one text has no neighbour"
    read = [words_of(text) for text in texts]
    numbers: dict[str, str] = {}
    # Words are letters of a text in alphabetical order: what two of them share is a common subsequence.
    bags = [
        "".join(sorted(numbers.setdefault(word, _letter(len(numbers))) for word in each.words))
        for each in read
    ]
    common = cdist(bags, bags, scorer=LCSseq.similarity, dtype=np.int32).astype(np.int64)
    lengths = np.array([len(bag) for bag in bags], np.int64)
    distances = share_that_differs(common, lengths[:, None] - common, lengths[None, :] - common)
    letters = np.array([each.letters for each in read], np.uint64)
    distances[letters[:, None] == letters[None, :]] = 0
    np.fill_diagonal(distances, np.inf)
    facts = np.array([each.facts for each in read], np.uint64)
    is_near = (distances <= NEAR) & (facts[:, None] == facts[None, :])
    return Diversity(
        texts=len(texts),
        near_duplicates=float(is_near.any(axis=1).mean()),
        mean_distance=float(distances.min(axis=1).mean()),
    )


def _letter(number: int) -> str:
    """A character of its own for each word."""
    code = _FIRST_WORD + number
    return chr(code if code < _SURROGATES.start else code + len(_SURROGATES))
