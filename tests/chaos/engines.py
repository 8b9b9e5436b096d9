"""Simulated engines of a fixed speed that obey orders: the chaos process's hand inside an actor.

An order is a file in a folder. The engine that removes the file obeys the order, so each order is obeyed
once, and a missing file means that it was. Invariant: `answered` counts the messages of a process even after
it was killed.
"""

import os
import random
import struct
import sys
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import Completion, Engine, EngineFigures
from magpie_ray.errors import EngineError
from magpie_ray.worker.spec import WorkerSpec
from tests.support.engines import NumberedEngine, ScriptedEngine

# In the environment of a broken node: what becomes of the engines there.
BROKEN_NODE = "CHAOS_BROKEN_NODE"
STARTS_FAIL, DIES_LATER = "starts fail", "dies later"
_DIES_AFTER_STEPS = 1000
_SLOWNESS = 10
_REJECT_EVERY = 100
_FIGURES = EngineFigures(max_num_seqs=32, kv_cache_tokens=100_000, max_model_len=2048)
_COUNTS = struct.Struct("<qq")


@dataclass(frozen=True, slots=True)
class Orders:
    """Where orders lie, and the counts of what engines have answered."""

    folder: Path

    def __post_init__(self) -> None:
        for part in ("orders", "answered"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)

    def path(self, who: int | str) -> Path:
        """The order to a process, or ("start") to the next engine that starts."""
        return self.folder / "orders" / str(who)

    def give(self, who: int | str, order: str) -> Path:
        """Lays the order down, whole; the path is gone once it is obeyed."""
        unseen = self.folder / f"order-to-{who}"
        unseen.write_text(order)
        unseen.rename(self.path(who))
        return self.path(who)

    def take(self, who: int | str) -> str | None:
        """The order, for the one caller that gets it."""
        path = self.path(who)
        if not path.exists():
            return None
        mine = self.folder / f"taken-{who}-{os.getpid()}"
        try:
            path.rename(mine)
        except FileNotFoundError:
            return None
        order = mine.read_text()
        mine.unlink()
        return order

    def answered(self, pid: int) -> tuple[int, int]:
        """How many messages the engine in a process has generated, and how many of those were empty."""
        try:
            return _COUNTS.unpack((self.folder / "answered" / str(pid)).read_bytes())  # type: ignore[return-value]
        except (FileNotFoundError, struct.error):  # its engine never came up
            return 0, 0


@dataclass(frozen=True, slots=True)
class SteeredEngine:
    """An engine factory: scripted answers, `step_seconds` a step, and orders from a folder."""

    folder: Path
    step_seconds: float

    def __call__(self, spec: WorkerSpec) -> Engine:
        orders = Orders(self.folder)
        broken = os.environ.get(BROKEN_NODE)
        if broken == STARTS_FAIL:
            raise EngineError("injected: no CUDA device")
        if orders.take("start"):
            raise EngineError("injected: no room for the weights")
        scripted = NumberedEngine if spec.build_spec.source else ScriptedEngine
        engine = scripted(reject_every=_REJECT_EVERY, figures=_FIGURES)(spec)
        steps = _DIES_AFTER_STEPS if broken == DIES_LATER else None
        return _Steered(engine, orders, self.step_seconds, dies_after_steps=steps)


class _Steered:
    """A scripted engine, which it is in all but steps, and what it was ordered to do before each of those."""

    def __init__(
        self, engine: Engine, orders: Orders, step_seconds: float, *, dies_after_steps: int | None
    ) -> None:
        self._steps_left = dies_after_steps
        self._engine = engine
        self._orders = orders
        self._step_seconds = step_seconds
        self._silent = False
        self._silent_steps = 0
        self._messages = self._empty = 0
        self._counts = os.open(orders.folder / "answered" / str(os.getpid()), os.O_RDWR | os.O_CREAT)
        os.pwrite(self._counts, _COUNTS.pack(0, 0), 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self) -> list[Completion]:
        if order := self._orders.take(os.getpid()):
            self._obey(order)
        if self._steps_left is not None:
            self._steps_left -= 1
            if self._steps_left < 0:
                raise EngineError("injected: uncorrectable ECC error")
        time.sleep(self._step_seconds)
        if self._silent:
            self._silent_steps += 1
            return []
        completions = self._engine.step()
        if completions:
            self._messages += len(completions)
            self._empty += sum(not completion.token_ids for completion in completions)
            os.pwrite(self._counts, _COUNTS.pack(self._messages, self._empty), 0)
        return completions

    def _obey(self, order: str) -> None:
        match order:
            case "raise":
                raise EngineError("injected: illegal memory access")
            case "block":
                threading.Event().wait()
            case "silent":
                self._silent = True
            case "slow":
                self._step_seconds *= _SLOWNESS
            case "clock":
                _jump(random.choice((-1, 1)) * 86_400.0)
            case _:
                raise AssertionError(f"no such order: {order}")

    def stats(self) -> EngineStats:
        """As vLLM's: a step counts whatever came of it."""
        stats = self._engine.stats()
        return replace(stats, steps=stats.steps + self._silent_steps)

    def close(self) -> None:
        os.close(self._counts)
        self._engine.close()


def _jump(seconds: float) -> None:
    """The wall clock of this process jumps; the monotonic one goes on, as it does when a machine's is set."""
    usual, usual_ns = time.time, time.time_ns
    time.time = lambda: usual() + seconds
    time.time_ns = lambda: usual_ns() + int(seconds * 1e9)

    class Jumped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(seconds=seconds)

    for name, module in list(sys.modules.items()):
        if name.startswith("magpie_ray") and getattr(module, "datetime", None) is datetime:
            module.datetime = Jumped  # type: ignore[attr-defined]
