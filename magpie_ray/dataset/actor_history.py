"""The lives of a run's actors: who worked where, from when to when, and how it ended.

Owns _magpie/runs/NNNNNN.actors.json, beside the run's record. What always holds: the file's size is bounded,
whatever happens to however many actors; what is left out of its list is in its sums. It decides nothing: it
is for readers.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

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


class ActorHistory:
    """The record as it grows, told by the job's loop. `clock`: seconds, monotonic."""

    def __init__(
        self,
        *,
        run: int = 0,
        device: str = "cpu",
        num_gpus: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._device, self._num_gpus, self._clock = run, device, num_gpus, clock
        self._began = clock()
        self._lives: list[ActorLife] = []
        self._current: dict[int, int] = {}  # slot -> index of its life

    def ask(self, slot: int) -> None:
        """A new actor is asked for."""
        self._current[slot] = len(self._lives)
        self._lives.append(ActorLife(slot=slot, asked=self._now()))

    def place(self, slot: int, node: str) -> None:
        self._change(slot, placed=self._now(), node=node)

    def get_ready(self, slot: int) -> None:
        self._change(slot, ready=self._now())

    def commit(self, slot: int, rows: int) -> None:
        if slot in self._current:
            self._change(slot, rows=self._lives[self._current[slot]].rows + rows)

    def end(self, slot: int, end: End, cause: str = "") -> None:
        """The slot's actor is no more. Nothing when that is known."""
        self._change(slot, ended=self._now(), end=end, cause=cause[:_CAUSE_CHARACTERS])
        self._current.pop(slot, None)

    def end_all(self) -> None:
        """The run is over."""
        for slot in list(self._current):
            self.end(slot, "ended")

    def record(self) -> ActorHistoryRecord:
        """What has been told so far."""
        now = self._now()
        more = self._lives[MAX_LIVES:]
        return ActorHistoryRecord(
            run=self._run,
            device=self._device,
            num_gpus=self._num_gpus,
            seconds=now,
            lives=tuple(self._lives[:MAX_LIVES]),
            left_out=len(more),
            left_out_seconds=round(math.fsum(life.held_seconds(now) for life in more), 1),
        )

    def _now(self) -> float:
        return round(self._clock() - self._began, 1)

    def _change(self, slot: int, **changes: Any) -> None:
        if (index := self._current.get(slot)) is not None:
            self._lives[index] = replace(self._lives[index], **changes)


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
