"""The lives of a run's actors: who worked where, from when to when, and how it ended.

Owns _magpie/runs/NNNNNN.actors.json, beside the run's record. What always holds: the file's size is bounded,
whatever happens to however many actors; what is left out of its list is in its sums. It decides nothing: it
is for readers.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

from magpie_ray.dataset.layout import RUNS_PREFIX, parse_json
from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage.storage import ObjectNotFoundError, Storage

# About 150 bytes each.
MAX_LIVES = 5_000
_CAUSE_CHARACTERS = 200

# lost: it is replaced, or given up. left: on notice, its own or its node's. ended: the run was over.
End = Literal["lost", "left", "ended"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorLife:
    """One actor of a slot. Times are seconds since the run began; None for what did not happen, or not yet.

    placed, ready: it has found its node; its engine is up. rows: that it has committed.
    """

    slot: int
    asked: float
    placed: float | None = None
    ready: float | None = None
    ended: float | None = None
    node: str = ""
    rows: int = 0
    end: End | None = None
    cause: str = ""

    def held_seconds(self, now: float) -> float:
        """How long it has had its place, and the GPUs there."""
        until = now if self.ended is None else self.ended
        return until - self.placed if self.placed is not None else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorHistoryRecord:
    """The lives of run number `run` up to `seconds`, in the order in which they began.

    device, num_gpus: what one actor takes. left_out, left_out_seconds: how many lives are not in the list,
    and how long they held their places together.
    """

    run: int
    device: str
    num_gpus: float
    seconds: float
    lives: tuple[ActorLife, ...] = ()
    left_out: int = 0
    left_out_seconds: float = 0.0

    @property
    def held_seconds(self) -> float:
        """Of all actors together, those left out included."""
        return math.fsum(life.held_seconds(self.seconds) for life in self.lives) + self.left_out_seconds

    @property
    def gpu_hours(self) -> float:
        """Time for which GPUs were held, whatever was done in it."""
        return self.held_seconds * self.num_gpus / 3600

    def to_json(self) -> bytes:
        """As it is stored: compact, without what is not set."""
        stored = asdict(replace(self, lives=())) | {"lives": [_entry(life) for life in self.lives]}
        return json.dumps(stored, ensure_ascii=False, separators=(",", ":")).encode()


def write_actor_history(storage: Storage, record: ActorHistoryRecord) -> None:
    """What is known so far, in place of what was."""
    storage.replace(_key(record.run), record.to_json())


def read_actor_history(storage: Storage, run: int) -> ActorHistoryRecord | None:
    """The lives of a run's actors; None where they were not recorded. CorruptBuildError for what is none."""
    key = _key(run)
    try:
        stored = parse_json(storage.read(key), key)
    except ObjectNotFoundError:
        return None
    try:
        record = ActorHistoryRecord(
            **(stored | {"lives": tuple(ActorLife(**entry) for entry in stored["lives"])})
        )
        record.held_seconds  # noqa: B018  of numbers
    except (KeyError, TypeError) as exc:
        raise CorruptBuildError(f"{storage.display(key)} is foreign or damaged: {exc}") from exc
    return record


def _key(run: int) -> str:
    return f"{RUNS_PREFIX}{run:06d}.actors.json"


def _entry(life: ActorLife) -> Mapping[str, object]:
    values = ((field.name, getattr(life, field.name), field.default) for field in fields(life))
    return {name: value for name, value, default in values if value != default}
