"""Many texts as arrays of numbers: what the search for near-duplicates works on.

Invariants: texts are in order of (set, row_id) and words in alphabetical order, however they were read.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from magpie_ray.similarity.words import Words

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

_GRAM = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Texts of one or more sets. sets: of each text, 0 for the data set that is deduplicated; row_ids: in it.

    vocabulary: the words, sorted; tokens: the words of all texts, as indices into it; offsets: where each
    text begins in tokens, and the end. facts, letters: as Words has them.
    """

    sets: npt.NDArray[np.int32]
    row_ids: Int64s
    vocabulary: Sequence[str]
    tokens: npt.NDArray[np.int32]
    offsets: Int64s
    facts: UInt64s
    letters: UInt64s

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def lengths(self) -> Int64s:
        """The number of words of each text."""
        return np.diff(self.offsets)

    def take(self, rows: Int64s) -> "Corpus":
        """Some of the texts, in this order."""
        lengths = self.lengths[rows]
        return Corpus(
            sets=self.sets[rows],
            row_ids=self.row_ids[rows],
            vocabulary=self.vocabulary,
            tokens=self.tokens[positions_of(self.offsets[rows], lengths)],
            offsets=offsets_of(lengths),
            facts=self.facts[rows],
            letters=self.letters[rows],
        )

    def words(self, row: int) -> list[str]:
        """The words of one text."""
        begin, end = self.offsets[row], self.offsets[row + 1]
        return [self.vocabulary[token] for token in self.tokens[begin:end]]

    def bags(self, word_hashes: UInt64s) -> UInt64s:
        """A hash of the words of each text, whatever their order."""
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(word_hashes[self.tokens], dtype=np.uint64)])
        found: UInt64s = sums[self.offsets[1:]] - sums[self.offsets[:-1]]
        return found


def read_corpus(texts: Iterable[tuple[int, int, Words]]) -> Corpus:
    """Texts as (set, row_id, words), in any order."""
    numbers: dict[str, int] = {}
    sets, row_ids, lengths = list[int](), list[int](), list[int]()
    facts, letters, tokens = list[int](), list[int](), list[npt.NDArray[np.int32]]()
    for number, row_id, words in texts:
        sets.append(number)
        row_ids.append(row_id)
        lengths.append(len(words.words))
        facts.append(words.facts)
        letters.append(words.letters)
        tokens.append(np.fromiter((numbers.setdefault(word, len(numbers)) for word in words.words), np.int32))
    vocabulary = sorted(numbers)
    ranks = np.empty(len(vocabulary), np.int32)
    ranks[np.fromiter((numbers[word] for word in vocabulary), np.int64, len(vocabulary))] = np.arange(
        len(vocabulary), dtype=np.int32
    )
    read = Corpus(
        sets=np.array(sets, np.int32),
        row_ids=np.array(row_ids, np.int64),
        vocabulary=vocabulary,
        tokens=ranks[np.concatenate([np.zeros(0, np.int32), *tokens])],
        offsets=offsets_of(np.array(lengths, np.int64)),
        facts=np.array(facts, np.uint64),
        letters=np.array(letters, np.uint64),
    )
    order = np.lexsort((read.row_ids, read.sets))
    return read if np.array_equal(order, np.arange(len(order))) else read.take(order)


def offsets_of(lengths: Int64s) -> Int64s:
    """Where each of several stretches begins when they follow each other, and the end of the last."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def positions_of(starts: Int64s, lengths: Int64s) -> Int64s:
    """The positions of several stretches, one after the other."""
    ends = offsets_of(lengths)
    return np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)


@dataclass(frozen=True)
class VocabularyGrams:
    """The character n-grams of each word, and hashes of words. They depend on spelling alone.

    values: the hashes of the grams, word after word; offsets: where those of a word begin, and the end.
    words: a hash of each word.
    """

    values: UInt64s
    offsets: Int64s
    words: UInt64s

    @cached_property
    def lengths(self) -> Int64s:
        return np.diff(self.offsets)


def grams_of(vocabulary: Sequence[str]) -> VocabularyGrams:
    """Trigrams of each word with a space at either end: "cat" has " ca", "cat", "at "."""
    text = "".join(f" {word} " for word in vocabulary)
    characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(word) + 2 for word in vocabulary], np.int64)
    starts = offsets_of(lengths)
    # A word has at least one letter, so each has a gram.
    counts = lengths - (_GRAM - 1)
    begins = positions_of(starts[:-1], counts)
    values = np.zeros(len(begins), np.uint64)
    for place in range(_GRAM):
        values = mixed(values * np.uint64(0x100000001B3) + characters[begins + place])
    offsets = offsets_of(counts)
    # The sum over a word's characters, each mixed with its place, tells words apart, anagrams as well.
    places = np.arange(len(characters)) - np.repeat(starts[:-1], lengths)
    spelled = mixed(characters + (places.astype(np.uint64) << np.uint64(32)))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(spelled, dtype=np.uint64)])
    return VocabularyGrams(values=values, offsets=offsets, words=mixed(sums[starts[1:]] - sums[starts[:-1]]))


def grams_of_rows(corpus: Corpus, grams: VocabularyGrams, start: int, stop: int) -> tuple[UInt64s, Int64s]:
    """The grams of texts start..stop-1, flat, with repeats, and where those of a text begin, and the end."""
    begin, end = corpus.offsets[start], corpus.offsets[stop]
    tokens = corpus.tokens[begin:end]
    counts = grams.lengths[tokens]
    values = grams.values[positions_of(grams.offsets[tokens], counts)]
    return values, offsets_of(counts)[corpus.offsets[start : stop + 1] - begin]


def mixed(values: UInt64s) -> UInt64s:
    """Each number scrambled, one to one (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def ranges(length: int, step: int) -> Iterator[tuple[int, int]]:
    """0..length-1 in ranges of `step`."""
    for start in range(0, length, step):
        yield start, min(length, start + step)
