"""Pairs of texts that may be near-duplicates, found without comparing all with all.

Two ways, because a text of few words changes a lot with one of them: texts meet in a band of their MinHash
signatures, or they are equal but for one word that was added or mistyped. The second way misses none of
those. Where very many texts share a key (one template, filled in many ways), each meets a few of them, which
are nearest to it in order of another key.

Invariants: the pairs are a function of the texts and their order; each is (smaller place, larger place); no
pair has two texts that are both of other sets.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from magpie_ray.curation.corpus import Corpus, Int64s, UInt64s, VocabularyGrams, mixed, positions_of
from magpie_ray.curation.distance import counts_of, differ_enough
from magpie_ray.curation.minhash import BANDS, Signatures, estimated

# The largest distance that is reported: of farther pairs the search would find only some.
HORIZON = 0.2
# How many texts one meets of those with the same key: in a band, by words, and by words and letters.
_IN_BAND, _BY_WORDS, _BY_LETTERS = 12, 48, 200
# A pair within the horizon of `distance` shares more trigrams than this estimate, but for one pair in 10,000.
_LEAST_ESTIMATE = 0.4
# In a longer text one word changes so few trigrams that a band finds it.
_MOST_WORDS = 40


def pairs_of(corpus: Corpus, grams: VocabularyGrams, signatures: Signatures) -> tuple[Int64s, Int64s]:
    """All pairs to compare, as places of texts in the corpus."""
    count = max(1, len(corpus))
    found = np.zeros(0, np.int64)
    for way in _ways(corpus, grams, signatures):
        keys = [np.minimum(left, right) * count + np.maximum(left, right) for left, right in way]
        found = _once(np.concatenate([found, *keys]))
    return found // count, found % count


def _once(keys: Int64s) -> Int64s:
    """Sorted, each once. Runs that are sorted already are merged, which numpy.unique does not do."""
    keys = np.sort(keys, kind="stable")
    return keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys


def _ways(
    corpus: Corpus, grams: VocabularyGrams, signatures: Signatures
) -> Iterator[Iterator[tuple[Int64s, Int64s]]]:
    """Pairs by each band, and by words; one pair may come several times."""
    for band in range(BANDS):
        key, other = signatures.bands[:, band], signatures.bands[:, (band + 1) % BANDS]
        yield _alike(corpus, signatures, _neighbours(key, other, _IN_BAND))
    yield from (_worth_it(corpus, pairs) for pairs in _one_word_apart(corpus, grams))


def _alike(
    corpus: Corpus, signatures: Signatures, pairs: Iterator[tuple[Int64s, Int64s]]
) -> Iterator[tuple[Int64s, Int64s]]:
    for left, right in _worth_it(corpus, pairs):
        is_near = estimated(signatures.sketch, left, right) >= _LEAST_ESTIMATE
        yield left[is_near], right[is_near]


def _worth_it(corpus: Corpus, pairs: Iterator[tuple[Int64s, Int64s]]) -> Iterator[tuple[Int64s, Int64s]]:
    """Pairs of two texts that are not both of other sets, and not of too different lengths."""
    lengths = corpus.lengths
    for left, right in pairs:
        is_ours = (corpus.sets[left] == 0) | (corpus.sets[right] == 0)
        more = np.abs(lengths[left] - lengths[right])
        longer = np.maximum(lengths[left], lengths[right])
        is_possible = np.minimum(more, more * more / 4) <= HORIZON * longer
        keep = is_ours & is_possible & (left != right)
        yield left[keep], right[keep]


def _neighbours(
    key: npt.NDArray[np.generic], then: npt.NDArray[np.generic], window: int
) -> Iterator[tuple[Int64s, Int64s]]:
    """Places with an equal key: all pairs of a few, of many those near each other in order of `then`."""
    order = np.lexsort((then, key))
    key = key[order]
    for step in range(1, min(window + 1, len(order))):
        equal = np.flatnonzero(key[step:] == key[:-step])
        if not len(equal):
            return
        yield order[equal], order[equal + step]


def _one_word_apart(corpus: Corpus, grams: VocabularyGrams) -> Iterator[Iterator[tuple[Int64s, Int64s]]]:
    words, facts = grams.words, mixed(corpus.facts)
    bags = corpus.bags(words) + facts
    places = np.arange(len(corpus))
    yield _neighbours(bags, places, _BY_WORDS)
    yield _neighbours(corpus.letters + facts, places, _BY_WORDS)
    short = np.flatnonzero(corpus.lengths <= _MOST_WORDS)
    lengths = corpus.lengths[short]
    tokens = corpus.tokens[positions_of(corpus.offsets[short], lengths)]
    rows = np.repeat(short, lengths)
    without = bags[rows] - words[tokens]
    yield _joined(bags, without, rows)
    for part in _ends(corpus.vocabulary):
        yield _mistyped(corpus, tokens, rows, _neighbours(without + part[tokens], tokens, _BY_LETTERS))


def _mistyped(
    corpus: Corpus, tokens: npt.NDArray[np.int32], rows: Int64s, pairs: Iterator[tuple[Int64s, Int64s]]
) -> Iterator[tuple[Int64s, Int64s]]:
    """Texts of pairs of words of which one may be a typo of the other."""
    counts = counts_of(corpus)
    letters = np.array([len(word) for word in corpus.vocabulary], np.int64)
    for left, right in pairs:
        one, other = tokens[left], tokens[right]
        may_be = differ_enough(counts, one, other) & (np.abs(letters[one] - letters[other]) <= 1)
        yield rows[left[may_be]], rows[right[may_be]]


def _joined(bags: UInt64s, without: UInt64s, rows: Int64s) -> Iterator[tuple[Int64s, Int64s]]:
    """Texts whose bag of words is another's without one word."""
    order = np.argsort(bags, kind="stable")
    ordered = bags[order]
    first = np.searchsorted(ordered, without, "left")
    for step in range(_BY_WORDS):
        at = np.minimum(first + step, len(ordered) - 1)
        equal = (first + step < len(ordered)) & (ordered[at] == without)
        if not equal.any():
            return
        yield order[at[equal]], rows[equal]


def _ends(vocabulary: Sequence[str]) -> Iterator[UInt64s]:
    """A hash of the first two letters of each word, and one of the last two: a typo leaves one of them."""
    for place, ends in enumerate((slice(0, 2), slice(-2, None))):
        codes = [word[ends].encode("utf-32-le", "surrogatepass").ljust(8, b"\0") for word in vocabulary]
        yield mixed(np.frombuffer(b"".join(codes), np.uint64) + np.uint64(place))
