"""MinHash signatures of texts by rensa: keys of bands, by which alike texts meet, and short sketches.

Two texts with the Jaccard similarity J of their trigrams have equal numbers in a share J of the signature.
They agree in a whole band of BAND_ROWS numbers with J**BAND_ROWS, and in at least one band of BANDS with
1 - (1 - J**BAND_ROWS)**BANDS: 0.97 for J = 0.75, 0.0003 for J = 0.2.

rensa makes them because it takes 17 microseconds of a core for a text and datasketch 210 (144 numbers, 110
trigrams, hashing of trigrams included in datasketch's). Both give the same numbers in every process.

Invariants: a signature depends on the set of a text's trigrams and on nothing else; rensa's version decides
the numbers, so pyproject.toml pins it and a data set's identity names it.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from magpie_ray.curation.corpus import Corpus, VocabularyGrams, grams_of_rows, mixed, ranges
from magpie_ray.curation.extra import curate_library

BANDS, BAND_ROWS = 24, 6
# Numbers of the sketch, which estimates J of a pair that met: its standard error is 0.06 for J = 0.5.
SKETCH = 64
_SEED = 20240612
# rensa hands digests over as Python numbers, 36 bytes each.
_ROWS_AT_ONCE = 8_192


@dataclass(frozen=True, kw_only=True, slots=True)
class Signatures:
    """bands: texts that may be alike have an equal key in one column, uint32 [texts, BANDS].

    sketch: one byte of each of the first SKETCH numbers, uint8 [texts, SKETCH].
    """

    bands: npt.NDArray[np.uint32]
    sketch: npt.NDArray[np.uint8]


def signatures_of(corpus: Corpus, grams: VocabularyGrams) -> Signatures:
    """The signatures of all texts. Texts with other facts have no key in common."""
    rensa = curate_library("rensa")
    bands = np.empty((len(corpus), BANDS), np.uint32)
    sketch = np.empty((len(corpus), SKETCH), np.uint8)
    numbers = BANDS * BAND_ROWS
    for start, stop in ranges(len(corpus), _ROWS_AT_ONCE):
        values, offsets = grams_of_rows(corpus, grams, start, stop)
        digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            values, offsets.astype(np.uint64), numbers, _SEED
        )
        flat = chain.from_iterable(digests.to_rows())
        rows = np.fromiter(flat, np.uint32, (stop - start) * numbers).reshape(stop - start, numbers)
        sketch[start:stop] = rows[:, :SKETCH]
        keys = np.repeat(corpus.facts[start:stop, None], BANDS, axis=1)
        banded = rows.reshape(stop - start, BANDS, BAND_ROWS).astype(np.uint64)
        for place in range(BAND_ROWS):
            keys = mixed(keys + banded[:, :, place])
        bands[start:stop] = keys
    return Signatures(bands=bands, sketch=sketch)


def estimated(
    sketch: npt.NDArray[np.uint8], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The Jaccard similarity of pairs of texts, estimated; a chance of 1/256 of equal bytes is included."""
    share: npt.NDArray[np.float64] = (sketch[left] == sketch[right]).mean(axis=1)
    return share
