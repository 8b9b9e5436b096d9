"""The lives of a build's actors on the axis of work.

Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

from magpie_ray.dataset.actor_history import ActorLife
from magpie_ray.publish.report.facts import Facts


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A life on the axis of work. `key`: run and slot."""

    key: str
    run: int
    life: ActorLife
    placed: float
    ready: float | None
    ended: float


def timeline(facts: Facts, most: int) -> tuple[Sequence[Placed], int]:
    """The lives of at most so many slots, those with losses first to be kept, and how many slots there are.

    ActorHistory that never found a place are left out.
    """
    slots = dict[tuple[int, int], list[Placed]]()
    for stretch in facts.stretches:
        lives = facts.lives.get(stretch.run.number)
        for life in lives.lives if lives else ():
            if life.placed is None or lives is None:
                continue
            until = lives.seconds if life.ended is None else life.ended
            slots.setdefault((stretch.run.number, life.slot), []).append(
                Placed(
                    key=f"{stretch.run.number:04d}/{life.slot:05d}",
                    run=stretch.run.number,
                    life=life,
                    placed=stretch.begin + life.placed,
                    ready=None if life.ready is None else stretch.begin + life.ready,
                    ended=stretch.begin + until,
                )
            )
    kept = sorted(slots)
    if len(kept) > most:
        lossy = sorted(kept, key=lambda slot: -sum(p.life.end == "lost" for p in slots[slot]))[: most // 2]
        others = [slot for slot in kept if slot not in set(lossy)]
        step = ceil(len(others) / (most - len(lossy)))
        kept = sorted([*lossy, *others[::step]])
    return [placed for slot in kept for placed in slots[slot]], len(slots)


def actors_up(facts: Facts) -> Sequence[tuple[float, int]]:
    """How many engines were up from each time of work on."""
    changes = list[tuple[float, int]]()
    for stretch in facts.stretches:
        lives = facts.lives.get(stretch.run.number)
        for life in lives.lives if lives else ():
            if life.ready is not None and lives is not None:
                changes.append((stretch.begin + life.ready, 1))
                changes.append((stretch.begin + (lives.seconds if life.ended is None else life.ended), -1))
    changes.sort()
    sums = accumulate(change for _, change in changes)
    return [(0.0, 0), *((at, up) for (at, _), up in zip(changes, sums, strict=True))]
