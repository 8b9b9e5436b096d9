"""The distance of two texts: the share of their words that differ.

Words are compared as a bag: their order does not count. Words without a partner are taken in pairs, one of
either text, as replaced; those left over were added. A word whose partner differs by one letter is a typo, if
one of both is rare: it stands in the data set once at most, or a hundred times less often than the other. So
"captial" is a typo of "capital", and "Iran" is none of "Iraq". The formula is that of similarity.difference.
0: the same words, or the same letters; 1: other numbers or code, or no word in common.

Invariants: symmetric; a function of the two texts alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from magpie_ray.curation.corpus import Corpus, Int64s, offsets_of, positions_of
from magpie_ray.similarity.difference import share_that_differs
from magpie_ray.similarity.words import Words

# A typo in a shorter word makes another word too often: cat, car.
_LETTERS, _SWAPPED_LETTERS = 4, 3
_RARE_TIMES, _RARER = 1, 100


def distance(one: Words, other: Words, counts: Mapping[str, int]) -> float:
    """The distance of two texts. counts: how often each word stands in the data set."""
    if one.facts != other.facts:
        return 1.0
    if one.letters == other.letters:
        return 0.0
    left, right = Counter(one.words), Counter(other.words)
    common = (left & right).total()
    return _distance(common, list((left - right).elements()), list((right - left).elements()), counts)


def _distance(common: int, left: list[str], right: list[str], counts: Mapping[str, int]) -> float:
    """Of two texts with so many words in common, and these others."""
    typos = _typos(left, right, counts)
    few, many = sorted((len(left) - typos, len(right) - typos))
    small = typos + many - few
    return (2 * few + min(small, small * small / 4)) / max(1, common + 2 * few + small)


def _typos(left: list[str], right: list[str], counts: Mapping[str, int]) -> int:
    """How many words have a partner of which they are a typo. Each word has one partner at most."""
    left, right = sorted((sorted(left), sorted(right)))
    found = 0
    for word in left:
        partner = next((other for other in right if is_typo(word, other, counts)), None)
        if partner is not None:
            right.remove(partner)
            found += 1
    return found


def is_typo(word: str, other: str, counts: Mapping[str, int]) -> bool:
    """Whether words are equal but for one letter, or for two that are swapped, and one of both is rare."""
    rare, usual = sorted((counts.get(word, 0), counts.get(other, 0)))
    return (rare <= _RARE_TIMES or rare * _RARER <= usual) and _one_letter_apart(word, other)


def _one_letter_apart(word: str, other: str) -> bool:
    from rapidfuzz.distance import OSA

    longest = max(len(word), len(other))
    if longest < _LETTERS and (longest < _SWAPPED_LETTERS or sorted(word) != sorted(other)):
        return False
    return OSA.distance(word, other, score_cutoff=1) == 1


def counts_of(corpus: Corpus) -> npt.NDArray[np.int64]:
    """How often each word of the vocabulary stands in the data set itself."""
    end = corpus.offsets[np.searchsorted(corpus.sets, 1)]
    return np.bincount(corpus.tokens[:end], minlength=len(corpus.vocabulary))


def distances(
    corpus: Corpus, left: Int64s, right: Int64s, counts: npt.NDArray[np.int64], *, most: float
) -> npt.NDArray[np.float32]:
    """The distances of pairs of texts, by their places in the corpus; 1 for those above `most`.

    counts: as counts_of has them. Memory grows with the words of all pairs.
    """
    words, pairs, surplus = _surplus(corpus, left, right)
    size = len(left)
    of_left = np.bincount(pairs, np.maximum(surplus, 0), size).astype(np.int64)
    of_right = np.bincount(pairs, np.maximum(-surplus, 0), size).astype(np.int64)
    common = corpus.lengths[left] - of_left
    found = share_that_differs(common, of_left, of_right, np.zeros(size, np.int64))
    is_same = corpus.letters[left] == corpus.letters[right]
    # At best every word that is left over is a typo of another.
    best = share_that_differs(common, of_left, of_right, np.minimum(of_left, of_right))
    may_be_typos = (best <= most) & (of_left > 0) & (of_right > 0) & ~is_same
    bounds = offsets_of(np.bincount(pairs, minlength=size))
    is_single = may_be_typos & (of_left == 1) & (of_right == 1)
    at = bounds[:-1][is_single]
    one = np.ones(len(at), np.int64)
    typos = _are_typos(corpus.vocabulary, counts, words[at], words[at + 1])
    found[is_single] = np.where(typos, share_that_differs(common[is_single], one, one, one), found[is_single])
    several = may_be_typos & ~is_single
    by_word = dict(zip(corpus.vocabulary, counts.tolist(), strict=True)) if several.any() else {}
    for pair in np.flatnonzero(several):
        mine = slice(bounds[pair], bounds[pair + 1])
        spare: tuple[list[str], list[str]] = ([], [])
        for word, many in zip(words[mine].tolist(), surplus[mine].tolist(), strict=True):
            spare[int(many < 0)].extend([corpus.vocabulary[word]] * abs(many))
        found[pair] = _distance(int(common[pair]), *spare, by_word)
    found[is_same] = 0
    found[corpus.facts[left] != corpus.facts[right]] = 1
    found[found > most] = 1
    return found.astype(np.float32)


def differ_enough(
    counts: npt.NDArray[np.int64], left: npt.NDArray[np.integer], right: npt.NDArray[np.integer]
) -> npt.NDArray[np.bool_]:
    """Of each pair of words whether one is rare, as is_typo has it."""
    rare = np.minimum(counts[left], counts[right])
    usual = np.maximum(counts[left], counts[right])
    found: npt.NDArray[np.bool_] = (rare <= _RARE_TIMES) | (rare * _RARER <= usual)
    return found


def _are_typos(
    vocabulary: Sequence[str], counts: npt.NDArray[np.int64], left: Int64s, right: Int64s
) -> npt.NDArray[np.bool_]:
    """Of each pair of words whether one is a typo of the other, as is_typo has it."""
    found = differ_enough(counts, left, right)
    for pair in np.flatnonzero(found):
        found[pair] = _one_letter_apart(vocabulary[left[pair]], vocabulary[right[pair]])
    return found


def _surplus(corpus: Corpus, left: Int64s, right: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Words that one text of a pair has more often: the word, the pair, how often (negative: the right one).

    In order of the pairs.
    """
    keys, signs = list[Int64s](), list[Int64s]()
    for rows, side in ((left, 1), (right, -1)):
        lengths = corpus.lengths[rows]
        tokens = corpus.tokens[positions_of(corpus.offsets[rows], lengths)].astype(np.int64)
        keys.append((np.repeat(np.arange(len(rows)), lengths) << 32) | tokens)
        signs.append(np.full(len(tokens), side))
    key, sign = np.concatenate(keys), np.concatenate(signs)
    if not len(key):
        return key, key, key
    order = np.argsort(key, kind="stable")
    key, sign = key[order], sign[order]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    surplus = np.add.reduceat(sign, first)
    key, surplus = key[first][surplus != 0], surplus[surplus != 0]
    return key & 0xFFFFFFFF, key >> 32, surplus
