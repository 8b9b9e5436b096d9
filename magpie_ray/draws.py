"""Draws that follow from the build's seed: a row's prompt and sampling settings, request and engine seeds.

Pure arithmetic. Invariants: a draw depends on its arguments alone, so a row is the same in any run, on any
actor, in any order; no two engine starts of a build have the same seed.
"""

import hashlib
import struct
from collections.abc import Sequence
from itertools import accumulate

from magpie_ray.types import SystemPrompt

# vLLM's seed must fit NumPy's 32 bits: 12 bits count the runs of a build, 20 the engine starts of a run.
_RUN_BITS, _START_BITS = 12, 20
MAX_RUNS, MAX_ENGINE_STARTS = 1 << _RUN_BITS, 1 << _START_BITS

# Streams of per-row draws: the same (seed, row_id) gives independent values for each purpose.
_PROMPT_STREAM, _REQUEST_STREAM, _SAMPLING_STREAM = 1, 2, 3


def system_prompt_of(row_id: int, *, seed: int, prompts: Sequence[SystemPrompt]) -> SystemPrompt | None:
    """The row's system prompt, drawn by weight from (seed, row_id) alone; None when there are none."""
    if not prompts:
        return None
    return prompts[_choice([p.weight for p in prompts], seed, row_id, _PROMPT_STREAM)]


def sampling_of(row_id: int, *, seed: int, weights: Sequence[float]) -> int:
    """The index of the row's sampling settings, drawn by weight from (seed, row_id) alone."""
    return _choice(weights, seed, row_id, _SAMPLING_STREAM) if len(weights) > 1 else 0


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


def _choice(weights: Sequence[float], *words: int) -> int:
    """An index of `weights`, which sum to one, as a function of `words`."""
    draw = _draw(*words) / 2**64
    uppers = accumulate(weights)
    # The weights sum to one only up to rounding.
    return next((index for index, upper in enumerate(uppers) if draw < upper), len(weights) - 1)


def _draw(*words: int) -> int:
    """A uniform 64-bit number as a function of `words` (each 0..2**64-1)."""
    packed = struct.pack(f"<{len(words)}Q", *words)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")
