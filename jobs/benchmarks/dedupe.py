"""Near-duplicates by words: what is found, and what it costs.

Texts are those of planted_texts: 1 in 20 is a near-copy of another, 1 in 10 is a look-alike that is none.
Each size runs in a process of its own, which reads JSON lines and writes a data set, as the command does.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.benchmarks.planted_texts import Planted, planted_texts
from jobs.benchmarks.result import Claim, Result, Table
from magpie_ray.curation.candidates import HORIZON
from magpie_ray.curation.corpus import Corpus, read_corpus
from magpie_ray.curation.dedupe import DedupeSpec, dedupe
from magpie_ray.curation.distance import counts_of, distances
from magpie_ray.curation.lexical import find_neighbours
from magpie_ray.curation.neighbours import Nearest, Neighbours, Pairs, UnionFind, nearest_of, repeat_counts
from magpie_ray.similarity.words import Words, words_of
from magpie_ray.storage.storage import Storage

SIZES = (100_000, 300_000, 1_000_000)
THRESHOLD = 0.05
_CHECKED_ROWS = 20_000
_MOST_SECONDS, _MOST_GB = 300.0, 4.0
_BUCKETS, _BLOCK, _PAIRS = 2_048, 1_000, 200_000


def run() -> Result:
    """Measure all sizes, recall and precision, and agreement with brute force."""
    sizes = [measured(size) for size in SIZES]
    found = accuracy(planted_texts(SIZES[0], copies=SIZES[0] // 20, look_alikes=SIZES[0] // 20))
    agreeing = agreement(
        planted_texts(_CHECKED_ROWS, copies=_CHECKED_ROWS // 20, look_alikes=_CHECKED_ROWS // 20)
    )
    largest = sizes[-1]
    return Result(
        name="dedupe",
        tables=[
            Table(title="cost, with reading and writing", rows=sizes),
            Table(title=f"what is found in {SIZES[0]:,} rows", rows=[found]),
        ],
        claims=[
            Claim(what="recall of near-copies", value=found["recall"], must_be="at least", bound=0.98),
            Claim(what="precision", value=found["precision"], must_be="at least", bound=0.98),
            Claim(
                what=f"rows of {_CHECKED_ROWS:,} as brute force has them",
                value=agreeing,
                must_be="at least",
                bound=0.995,
            ),
            Claim(
                what="seconds for 1,000,000 rows",
                value=largest["seconds"],
                must_be="at most",
                bound=_MOST_SECONDS,
            ),
            Claim(what="GB for 1,000,000 rows", value=largest["peak_GB"], must_be="at most", bound=_MOST_GB),
        ],
        notes=["cpu_seconds: of all threads; where other programs run, it tells more than seconds"],
    )


def words_of_all(planted: Planted) -> list[Words]:
    """The words of each text."""
    return [words_of(text) for text in planted.texts]


def search(words: Sequence[Words]) -> Neighbours:
    """As the command searches."""
    return find_neighbours(((0, row, each) for row, each in enumerate(words)), threshold=THRESHOLD)


def accuracy(planted: Planted) -> dict[str, Any]:
    """Recall: near-copies of which one of the couple is marked as a repeat. Precision: of all rows marked."""
    repeats = search(words_of_all(planted)).repeats
    couples = [(max(couple), couple) for couple in planted.copies.items()]
    copied = {row for _, couple in couples for row in couple}
    marked = np.flatnonzero(repeats).tolist()
    return {
        "near_copies": len(couples),
        "look_alikes": len(planted.look_alikes),
        "marked": len(marked),
        "recall": sum(bool(repeats[later]) for later, _ in couples) / len(couples),
        "precision": sum(row in copied for row in marked) / len(marked),
    }


def agreement(planted: Planted) -> float:
    """The share of rows of which nearest row, distance and repeats are those that brute force finds."""
    words = words_of_all(planted)
    found, (nearest, repeats) = search(words), brute_force(words)
    same = (found.repeats == repeats) & (found.similar == nearest.places)
    return float((same & (found.distances == nearest.distances)).mean())


def brute_force(words: Sequence[Words]) -> tuple[Nearest, npt.NDArray[np.int32]]:
    """The nearest text of each, and its repeats, by comparing all with all."""
    corpus = read_corpus((0, row, each) for row, each in enumerate(words))
    left, right = _possible_pairs(corpus)
    counts = counts_of(corpus)
    parts = [slice(start, start + _PAIRS) for start in range(0, len(left), _PAIRS)]
    found = np.concatenate([distances(corpus, left[p], right[p], counts, most=HORIZON) for p in parts])
    pairs = Pairs(left=left, right=right, distances=found).where(found <= HORIZON)
    union = UnionFind(len(corpus))
    near = pairs.where(pairs.distances <= np.float32(THRESHOLD))
    union.join(near.left, near.right)
    return nearest_of(pairs, len(corpus)), repeat_counts(union.roots())


def _possible_pairs(corpus: Corpus) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All pairs but those with too few words in common to be within the horizon, or with other letters.

    Words share buckets, so a pair never has fewer words in common than buckets say.
    """
    counts = np.zeros((len(corpus), _BUCKETS), np.float32)
    rows = np.repeat(np.arange(len(corpus)), corpus.lengths)
    np.add.at(counts, (rows, corpus.tokens % _BUCKETS), 1)
    longest = corpus.lengths.astype(np.float32)
    least = (1 - HORIZON) * longest - np.sqrt((1 - HORIZON) * longest)
    lefts, rights = [], []
    for start in range(0, len(corpus), _BLOCK):
        block = slice(start, start + _BLOCK)
        common = counts[block] @ counts.T
        possible = common >= np.maximum(least[block, None], least[None, :])
        possible |= corpus.letters[block, None] == corpus.letters[None, :]
        left, right = np.nonzero(possible)
        left += start
        lefts.append(left[left < right])
        rights.append(right[left < right])
    return np.concatenate(lefts), np.concatenate(rights)


def measured(size: int) -> dict[str, Any]:
    """The cost of a data set of this size, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        with source.open("w") as file:
            for text in planted_texts(size, copies=size // 20, look_alikes=size // 20).texts:
                file.write(json.dumps({"instruction": text}) + "\n")
        command = [sys.executable, "-m", "jobs.benchmarks.dedupe", str(source), str(Path(folder) / "marked")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result: dict[str, Any] = {"rows": size} | json.loads(done.stdout)
        return result


def _mark(source: str, destination: str) -> None:
    """What the process does. It prints its costs."""
    began = time.perf_counter()
    dedupe(Storage(destination), DedupeSpec(source=source))
    costs = {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "peak_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    print(json.dumps(costs))


if __name__ == "__main__":
    _mark(*sys.argv[1:])
