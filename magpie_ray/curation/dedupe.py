"""`dedupe`: which rows of a data set repeat others, and which are near to texts of other sets, as a data set.

It has one row for each row of its source, with the same row_id. Invariants: its identity is the source's with
its number of rows, the other sets' and the settings. A source that has grown is another source: a new row may
be the nearest of any old one, so no old row would stay as it is, and a data set never changes its rows.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa

from magpie_ray.curation import lexical, semantic
from magpie_ray.curation.candidates import HORIZON
from magpie_ray.curation.embeddings import Embeddings, find_embeddings
from magpie_ray.curation.neighbours import NOWHERE, Neighbours
from magpie_ray.curation.output import ROWS_PER_FILE, CuratedSet, check_apart, find_finished, write_rows
from magpie_ray.errors import ConfigError
from magpie_ray.similarity.words import Words, words_of
from magpie_ray.sources.index import SourceIndex, look_at_source
from magpie_ray.sources.reader import SourceRow, read_all
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord

KIND = "dedupe"
Of = Literal["instruction", "response", "conversation"]

# They change with what the same texts and settings lead to.
_LEXICAL_METHOD, _SEMANTIC_METHOD = "words 1", "cosine 1"
_MOST_COSINE = 2.0
_SEEN_ROWS = 10_000

_COLUMNS = (
    pa.field("row_id", pa.int64(), nullable=False),
    pa.field("min_neighbor_distance", pa.float32(), nullable=False),
    pa.field("min_similar_row_id", pa.int64()),
    pa.field("repeat_count", pa.int32(), nullable=False),
)
_AGAINST_COLUMNS = (
    pa.field("against_distance", pa.float32(), nullable=False),
    pa.field("against_row_id", pa.int64()),
    pa.field("against_set", pa.int32()),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DedupeSpec:
    """What the user asks for. distance: the largest of near-duplicates.

    against: other sets that rows are compared with. embeddings: the vectors of the source's rows; then those
    of `against` are vectors, too. ignore_numbers: texts may be near whose numbers or code differ.
    """

    source: str
    of: Of = "instruction"
    distance: float = 0.05
    against: tuple[str, ...] = ()
    embeddings: str | None = None
    embedding_column: str | None = None
    ignore_numbers: bool = False
    storage_options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        most = HORIZON if self.embeddings is None else _MOST_COSINE
        if not 0 <= self.distance <= most:
            raise ConfigError(
                f"--distance: got {self.distance:g}, must be between 0 and {most:g}"
                + ("" if self.embeddings else "; farther texts are not searched for without --embeddings")
            )
        if self.embedding_column is not None and self.embeddings is None:
            raise ConfigError("--embedding-column: needs --embeddings, whose column it names")


@dataclass(frozen=True, kw_only=True, slots=True)
class Deduped:
    """url: of the data set; rows: in it. is_new: whether it was written; otherwise it was there.

    repeats: rows that repeat one before them; near_others: rows within the distance of another set. Both are
    None where nothing was written.
    """

    url: str
    rows: int
    is_new: bool
    repeats: int | None = None
    near_others: int | None = None


def dedupe(
    storage: Storage,
    spec: DedupeSpec,
    *,
    on_step: Callable[[str], None] = lambda step: None,
    finishing: Callable[[Sequence[PartitionRecord]], object] = lambda records: None,
) -> Deduped:
    """Find the near-duplicates of a data set and write them as one, unless it is there already.

    on_step: hears what is being done. finishing: is called with the files before _SUCCESS is written.
    ConfigError, PreflightError, BuildMismatchError where the output holds another data set; StorageError.
    """
    check_apart(storage, [("SOURCE", spec.source), *(("--against", place) for place in spec.against)])
    work = _look(spec)
    wanted = _curated_set(spec, work)
    finished = find_finished(storage, wanted)
    if finished is not None:
        return Deduped(url=storage.url, rows=finished, is_new=False)
    found = work.search(on_step)
    on_step("writing")
    rows = write_rows(storage, wanted, _batches(found, wanted.schema), finishing=finishing)
    return Deduped(
        url=storage.url,
        rows=rows,
        is_new=True,
        repeats=int((found.repeats > 0).sum()),
        near_others=int((found.against_distances <= np.float32(spec.distance)).sum()),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """What was found at the places of a spec. against: texts or vectors; one of the two is empty."""

    spec: DedupeSpec
    source: SourceIndex
    embeddings: Embeddings | None
    against: tuple[SourceIndex, ...]
    against_embeddings: tuple[Embeddings, ...]

    def search(self, on_step: Callable[[str], None]) -> Neighbours:
        """Read everything and compare it."""
        spec = self.spec
        if self.embeddings is None:
            sets = enumerate((self.source, *self.against))
            texts = (text for number, index in sets for text in self._texts(number, index, on_step))
            return lexical.find_neighbours(texts, threshold=spec.distance, on_step=on_step)
        facts = np.zeros(self.source.num_rows, np.uint64)
        if not spec.ignore_numbers:
            for _, row_id, words in self._texts(0, self.source, on_step):
                facts[row_id] = words.facts
        on_step("comparing vectors")
        every = (self.embeddings, *self.against_embeddings)
        counts = [one.num_rows for one in every]
        vectors = semantic.Vectors(
            sets=np.repeat(np.arange(len(every), dtype=np.int32), counts),
            row_ids=np.concatenate([np.arange(count) for count in counts]),
            values=np.concatenate([one.read() for one in every]) if len(every) > 1 else every[0].read(),
            facts=np.concatenate([facts, np.zeros(sum(counts[1:]), np.uint64)]),
        )
        return semantic.find_near_vectors(vectors, threshold=spec.distance)

    def _texts(
        self, number: int, index: SourceIndex, on_step: Callable[[str], None]
    ) -> Iterator[tuple[int, int, Words]]:
        for row in read_all(index, self.spec.storage_options):
            if row.row_id % _SEEN_ROWS == 0:
                on_step(f"{row.row_id:,} of {index.num_rows:,} rows of {index.url} are read")
            text = _text_of(row, self.spec.of, index)
            yield number, row.row_id, words_of(text, ignore_numbers=self.spec.ignore_numbers)


def _look(spec: DedupeSpec) -> _Work:
    source = look_at_source("SOURCE", spec.source, spec.storage_options, ())
    if spec.embeddings is None:
        against = tuple(look_at_source("--against", url, spec.storage_options, ()) for url in spec.against)
        return _Work(spec=spec, source=source, embeddings=None, against=against, against_embeddings=())
    embeddings = find_embeddings("--embeddings", spec.embeddings, spec.storage_options, spec.embedding_column)
    if embeddings.num_rows != source.num_rows:
        raise ConfigError(
            f"--embeddings: {embeddings.storage.url} has {embeddings.num_rows:,} rows and {source.url} has "
            f"{source.num_rows:,}: run the same `score` command again, or give the embeddings of this source"
        )
    others = tuple(
        find_embeddings("--against", url, spec.storage_options, embeddings.column) for url in spec.against
    )
    for other in others:
        if other.dimensions != embeddings.dimensions:
            raise ConfigError(
                f"--against: vectors of {other.storage.url} have {other.dimensions} numbers and those of "
                f"--embeddings {embeddings.dimensions}: let the same model make both"
            )
    return _Work(spec=spec, source=source, embeddings=embeddings, against=(), against_embeddings=others)


def _curated_set(spec: DedupeSpec, work: _Work) -> CuratedSet:
    against = [*(_identity(index) for index in work.against), *(o.identity for o in work.against_embeddings)]
    identity = {
        "source": _identity(work.source),
        "of": spec.of,
        "distance": spec.distance,
        "ignore_numbers": spec.ignore_numbers,
        "against": against,
        "embeddings": work.embeddings.identity if work.embeddings else None,
        "method": _SEMANTIC_METHOD if work.embeddings else _LEXICAL_METHOD,
    }
    asked = {"against": list(spec.against), "embeddings": spec.embeddings}
    return CuratedSet(
        kind=KIND,
        identity=identity,
        schema=pa.schema([*_COLUMNS, *(_AGAINST_COLUMNS if spec.against else ())]),
        config={
            "source": spec.source,
            "of": spec.of,
            "distance": spec.distance,
            "ignore_numbers": spec.ignore_numbers,
            **{key: value for key, value in asked.items() if value},
        },
        packages=("magpie-ray", "pyarrow", "numpy", "rapidfuzz", "rensa", "faiss-cpu"),
    )


def _identity(index: SourceIndex) -> Mapping[str, object]:
    """Of a source as it stands, with all its rows. The place where it lies does not count."""
    sizes = [index.files[name].to_numpy().astype("<i8").tobytes() for name in ("rows", "size")]
    files = hashlib.sha256(b"".join(sizes)).hexdigest()
    return {"identity": index.identity, "rows": index.num_rows, "files": files}


def _text_of(row: SourceRow, of: Of, index: SourceIndex) -> str:
    """The text of a row that is compared: its first instruction, its last response, or all messages."""
    if of == "conversation":
        return "\n".join(text for _, text in row.messages)
    if of == "instruction":
        return row.messages[0][1]
    role, text = row.messages[-1]
    if role != "assistant":
        raise ConfigError(
            f"--of response: row {row.row_id} of {index.url} ends with the user: use --of instruction"
        )
    return text


def _batches(found: Neighbours, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    columns = {
        "row_id": pa.array(found.row_ids),
        "min_neighbor_distance": pa.array(found.distances),
        "min_similar_row_id": pa.array(found.similar, mask=found.similar == NOWHERE),
        "repeat_count": pa.array(found.repeats),
        "against_distance": pa.array(found.against_distances),
        "against_row_id": pa.array(found.against, mask=found.against == NOWHERE),
        # In the order of --against, from 0.
        "against_set": pa.array(found.against_sets - 1, mask=found.against == NOWHERE),
    }
    whole = pa.record_batch([columns[name] for name in schema.names], schema=schema)
    for start in range(0, whole.num_rows, ROWS_PER_FILE):
        yield whole.slice(start, ROWS_PER_FILE)
