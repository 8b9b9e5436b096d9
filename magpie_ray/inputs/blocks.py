"""Inputs of rows, read from the copy in the build: a few blocks by range, several at a time.

Invariants: which input a row has follows from (seed, row_id) and the inputs alone; what is read and held is
bounded, however many inputs there are.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from magpie_ray import draws
from magpie_ray.inputs.copy import INDEX, PROMPT, WEIGHT, CopyIndex, Part, read_block
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Input
from magpie_ray.utils.background import DaemonExecutor

# Small sets of inputs, and those that rows share, are read once.
_CACHE_BYTES = 32 << 20
_MOST_INDEXES = 128
# Blocks with a gap of at most so much between them are read by one request.
_GAP_BYTES = 64 << 10
_REQUEST_BYTES = 4 << 20
_READERS = 8

Pick = Literal["in_order", "at_random"]
# Part and block in it, both by number.
_Block = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LoadedInput:
    """The input of a row. prompt: None for no system prompt."""

    row_id: int
    input: Input
    prompt: str | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row's input lies: a place in the block, or a weight that the input's running sum exceeds."""

    block: _Block
    offset: int = 0
    weight: float | None = None


class InputBlocks:
    """The inputs of one build. One thread at a time calls `load`."""

    def __init__(
        self, storage: Storage, index: CopyIndex, *, seed: int, pick: Pick, cache_bytes: int = _CACHE_BYTES
    ) -> None:
        self._storage, self._index, self._seed, self._pick = storage, index, seed, pick
        self._schema = index.schema
        self._kept = [name for name in self._schema.names[1:] if name != WEIGHT]
        self._firsts = [0, *accumulate(part.inputs for part in index.parts)]
        self._weights = tuple(accumulate(part.weight for part in index.parts))
        self._indexes: OrderedDict[int, Any] = OrderedDict()
        self._cache: OrderedDict[_Block, pa.RecordBatch] = OrderedDict()
        self._cached, self._cache_bytes = 0, cache_bytes
        self._readers = DaemonExecutor(_READERS, name="inputs")

    def load(self, rows: Sequence[int]) -> list[LoadedInput]:
        """The inputs of these rows, in their order. StorageError when they can't be read."""
        places = [self._place(row_id) for row_id in rows]
        batches = self._batches({place.block for place in places})
        picked: dict[_Block, list[tuple[int, int]]] = {}  # number among the rows, offset in the block
        for number, place in enumerate(places):
            offset = place.offset
            if place.weight is not None:
                bounds = np.cumsum(batches[place.block].column(WEIGHT).to_numpy(zero_copy_only=False))
                offset = min(int(np.searchsorted(bounds, place.weight, side="right")), len(bounds) - 1)
            picked.setdefault(place.block, []).append((number, offset))
        loaded: list[LoadedInput | None] = [None] * len(rows)
        for (part, block), wanted in picked.items():
            # A copy of the rows that are wanted: a slice would keep the whole block in memory.
            taken = batches[part, block].take(pa.array([offset for _, offset in wanted], pa.int32()))
            prompts = taken.column(PROMPT).to_pylist()
            kept = taken.select(self._kept) if self._kept else None
            begin = self._firsts[part] + block * self._index.block_inputs
            for place_, ((number, offset), prompt) in enumerate(zip(wanted, prompts, strict=True)):
                cells = kept.slice(place_, 1) if kept is not None else None
                one = Input(input_id=begin + offset, kept=cells)
                loaded[number] = LoadedInput(rows[number], one, prompt)
        return [one for one in loaded if one is not None]

    def _place(self, row_id: int) -> _Place:
        index = self._index
        if self._pick == "at_random" and index.weighted:
            weight = draws.input_share_of(row_id, seed=self._seed) * self._weights[-1]
            part = min(bisect_right(self._weights, weight), len(index.parts) - 1)
            weight -= self._weights[part - 1] if part else 0.0
            bounds = self._index_of(part)["bound"]
            block = min(int(np.searchsorted(bounds, weight, side="right")), len(bounds) - 1)
            return _Place((part, block), weight=weight - (float(bounds[block - 1]) if block else 0.0))
        if self._pick == "at_random":
            number = draws.input_of(row_id, seed=self._seed, inputs=index.inputs)
        else:
            number = row_id % index.inputs
        part = bisect_right(self._firsts, number) - 1
        block, offset = divmod(number - self._firsts[part], index.block_inputs)
        return _Place((part, block), offset)

    def _index_of(self, number: int) -> Any:
        """Where the blocks of a part lie, with the running sums of their weights."""
        known = self._indexes.get(number)
        if known is None:
            part = self._index.parts[number]
            stop = part.index_at + part.blocks * INDEX.itemsize
            index = np.frombuffer(self._storage.read_range(part.key, part.index_at, stop), INDEX)
            known = {name: index[name] for name in INDEX.names or ()}
            known["bound"] = np.cumsum(index["weight"])
            self._indexes[number] = known
            if len(self._indexes) > _MOST_INDEXES:
                self._indexes.popitem(last=False)
        self._indexes.move_to_end(number)
        return known

    def _batches(self, blocks: Iterable[_Block]) -> dict[_Block, pa.RecordBatch]:
        found, missing = {}, list[_Block]()
        for block in sorted(blocks):
            if (batch := self._cache.get(block)) is not None:
                self._cache.move_to_end(block)
                found[block] = batch
            else:
                missing.append(block)
        for block in missing:
            self._index_of(block[0])
        for batches in self._readers.map(self._read, self._requests(missing)):
            found |= batches
        for block in missing:
            self._keep(block, found[block])
        return found

    def _requests(
        self, blocks: Sequence[_Block]
    ) -> list[tuple[Part, list[_Block], list[tuple[int, int, int]]]]:
        """Blocks of one part that are read together, each with its place and sizes."""
        requests: list[tuple[Part, list[_Block], list[tuple[int, int, int]]]] = []
        last = -1
        for block in blocks:
            index, number = self._index_of(block[0]), block[1]
            at, size, raw = (int(index[name][number]) for name in ("at", "bytes", "raw"))
            if requests and last == block[0]:
                _, known, sizes = requests[-1]
                begin, end = sizes[0][0], sizes[-1][0] + sizes[-1][1]
                if at - end <= _GAP_BYTES and at + size - begin <= _REQUEST_BYTES:
                    known.append(block)
                    sizes.append((at, size, raw))
                    continue
            requests.append((self._index.parts[block[0]], [block], [(at, size, raw)]))
            last = block[0]
        return requests

    def _read(
        self, request: tuple[Part, list[_Block], list[tuple[int, int, int]]]
    ) -> dict[_Block, pa.RecordBatch]:
        part, blocks, sizes = request
        begin, end = sizes[0][0], sizes[-1][0] + sizes[-1][1]
        data = memoryview(self._storage.read_range(part.key, begin, end))
        return {
            block: read_block(bytes(data[at - begin : at - begin + size]), raw, self._schema)
            for block, (at, size, raw) in zip(blocks, sizes, strict=True)
        }

    def _keep(self, block: _Block, batch: pa.RecordBatch) -> None:
        self._cache[block] = batch
        self._cached += batch.nbytes
        while self._cached > self._cache_bytes and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes

    def close(self) -> None:
        """End the threads."""
        self._readers.shutdown(wait=False)
