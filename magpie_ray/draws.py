"""Draws that follow from the build's seed: a row's prompt and sampling settings, request and engine seeds.

Invariants: a draw depends on its arguments alone, so a row is the same in any run, on any actor, in any
order; only new_seed is random. No two engine starts of a build have the same seed.
"""

import hashlib
import secrets
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from magpie_ray.types import SystemPrompt

# vLLM's seed must fit NumPy's 32 bits: 12 bits count the runs of a build, 20 the engine starts of a run.
_RUN_BITS, _START_BITS = 12, 20
MAX_RUNS, MAX_ENGINE_STARTS = 1 << _RUN_BITS, 1 << _START_BITS

# Streams of per-row draws: the same (seed, row_id) gives independent values for each purpose.
_PROMPT_STREAM, _REQUEST_STREAM, _SAMPLING_STREAM, _INPUT_STREAM = 1, 2, 3, 4


def new_seed() -> int:
    """A random seed for a new build, 0..2**32-1."""
    return secrets.randbits(32)


def bounds_of(weights: Iterable[float]) -> tuple[float, ...]:
    """The running sums of weights: index i is drawn below bound i and not below bound i-1."""
    return tuple(accumulate(weights))


def system_prompt_of(
    row_id: int, *, seed: int, prompts: Sequence[SystemPrompt], bounds: Sequence[float] | None = None
) -> SystemPrompt | None:
    """The row's system prompt, drawn by weight from (seed, row_id) alone; None when there are none.

    bounds: of the prompts' weights, for a caller with many rows; the draw then takes the logarithm of their
    number.
    """
    if not prompts:
        return None
    bounds = bounds_of(prompt.weight for prompt in prompts) if bounds is None else bounds
    return prompts[_choice(bounds, seed, row_id, _PROMPT_STREAM)]


def sampling_of(row_id: int, *, seed: int, weights: Sequence[float]) -> int:
    """The index of the row's sampling settings, drawn by weight from (seed, row_id) alone."""
    return _choice(bounds_of(weights), seed, row_id, _SAMPLING_STREAM) if len(weights) > 1 else 0


def input_of(row_id: int, *, seed: int, inputs: int) -> int:
    """The index of the row's input among so many, all alike likely, drawn from (seed, row_id) alone."""
    return _draw(seed, row_id, _INPUT_STREAM) * inputs >> 64


def input_share_of(row_id: int, *, seed: int) -> float:
    """Where the row's input lies among all inputs, as a share (0 up to 1) of the sum of their weights."""
    # 53 bits, so that no share rounds to 1.
    return (_draw(seed, row_id, _INPUT_STREAM) >> 11) / 2**53


def request_seed(row_id: int, *, seed: int, attempt: int, message: int) -> int:
    """A sampling seed for one request of a reproducible build, 0..2**63-1."""
    return _draw(seed, row_id, _REQUEST_STREAM, attempt, message) >> 1


def engine_seed(*, seed: int, run: int, start: int) -> int:
    """A 32-bit engine seed that no other engine start of the build has.

    run counts from 1 within the build, start from 0 within the run. The build's seed shifts the whole range,
    so that builds with different seeds differ. ValueError beyond MAX_RUNS and MAX_ENGINE_STARTS.
    """
    if not 0 < run < MAX_RUNS or not 0 <= start < MAX_ENGINE_STARTS:
        raise ValueError(
            f"run {run} and engine start {start} must be below {MAX_RUNS} and {MAX_ENGINE_STARTS}: "
            "beyond that engine seeds would repeat; finish the build under another output.path"
        )
    return ((run << _START_BITS | start) + _draw(seed, 0) % 2**32) % 2**32


def _choice(bounds: Sequence[float], *words: int) -> int:
    """An index of `bounds`, which end at one, as a function of `words`."""
    # The last bound is one only up to rounding.
    return min(bisect_right(bounds, _draw(*words) / 2**64), len(bounds) - 1)


def _draw(*words: int) -> int:
    """A uniform 64-bit number as a function of `words` (each 0..2**64-1)."""
    packed = struct.pack(f"<{len(words)}Q", *words)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")
