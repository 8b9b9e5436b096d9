"""Right and wrong answers to the bundled model's tasks, for tiny_reward.

A wrong answer is the answer to another instruction, which `corpus.is_right` calls wrong for this one. One
fact in five is held out: no pair for training asks for it, and none has its answer. That a value is the wrong
one in an otherwise right sentence ("The capital of Spain is Paris.") is not asked for: of such pairs a linear
head ranks 73 of 100 right, and corrections of rank 2 in the last two layers as many.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from jobs.tiny_chat.corpus import Fact, instructions_for, is_right
from jobs.tiny_chat.relations import RELATIONS

_HELD_OUT_SEED = 0
_ONE_IN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """An instruction of the corpus with two answers."""

    instruction: str
    right: str
    wrong: str


@cache
def _facts() -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """The facts to train on, and those held out."""
    facts = [Fact(relation, entity) for relation in RELATIONS for entity in relation.table]
    random.Random(_HELD_OUT_SEED).shuffle(facts)
    cut = len(facts) // _ONE_IN
    return tuple(facts[cut:]), tuple(facts[:cut])


def training_pairs(count: int, seed: int) -> Iterator[Pair]:
    """`count` pairs; the same seed gives the same ones."""
    return _pairs(_facts()[0], count, seed)


def held_out_pairs(count: int, seed: int) -> Iterator[Pair]:
    """`count` pairs of facts that no training pair asks for."""
    return _pairs(_facts()[1], count, seed)


def _pairs(facts: Sequence[Fact], count: int, seed: int) -> Iterator[Pair]:
    draw = random.Random(seed)
    while count:
        fact, other = draw.choice(facts), draw.choice(facts)
        instruction = draw.choice(instructions_for(fact))
        if is_right([{"role": "user", "content": instruction}], other.answer) is False:
            count -= 1
            yield Pair(instruction=instruction, right=fact.answer, wrong=other.answer)
