"""The labels of a choice as token ids, and the search for the most probable one.

The tokens of all labels are a tree. Where labels part, the model says how probable each continuation is;
these probabilities are scaled to a sum of one, so that the probabilities of all labels sum to one. Where
labels go on alike, nothing is asked. Invariant: the result of a search is the most probable label of all,
though only branches that could still lead to it are visited.
"""

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from magpie_ray.engine.scoring import MAX_ASKED_TOKENS
from magpie_ray.errors import ConfigError, EngineError


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """A continuation at a fork: one of these tokens, then a label is decided or another fork follows.

    Several tokens are the endings of a message, behind a label that other labels begin with.
    """

    token_ids: tuple[int, ...]
    leads_to: "str | Fork"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fork:
    """A place where labels part. so_far: the tokens that they share. options: at least two."""

    so_far: tuple[int, ...]
    options: tuple[Option, ...]

    @property
    def asked(self) -> tuple[int, ...]:
        """The tokens of all options, in order."""
        return tuple(token_id for option in self.options for token_id in option.token_ids)

    def forks(self) -> Iterator["Fork"]:
        """This fork and all behind it."""
        yield self
        for option in self.options:
            if isinstance(option.leads_to, Fork):
                yield from option.leads_to.forks()


def fork_of(labels: Mapping[str, Sequence[int]], *, ends: Sequence[int], where: str) -> Fork:
    """The first fork of at least two labels. ends: the tokens that end a message.

    where: the key of the config, for a ConfigError: labels without tokens, of the same tokens, or too many.
    """
    by_ids: dict[tuple[int, ...], str] = {}
    for label, token_ids in labels.items():
        if not token_ids:
            raise ConfigError(f"{where}: the model's tokenizer has no tokens for the label {label!r}")
        if other := by_ids.get(tuple(token_ids)):
            raise ConfigError(
                f"{where}: {other!r} and {label!r} are the same tokens to this model; rename one of them"
            )
        by_ids[tuple(token_ids)] = label
    fork = _fork(by_ids, 0, tuple(ends))
    assert isinstance(fork, Fork), "there are at least two labels"
    for each in fork.forks():
        if len(each.asked) > MAX_ASKED_TOKENS:
            raise ConfigError(
                f"{where}: {len(each.asked)} labels begin with different tokens, and a model can be asked "
                f"about {MAX_ASKED_TOKENS}; use fewer labels"
            )
    return fork


def _fork(by_ids: Mapping[tuple[int, ...], str], depth: int, ends: tuple[int, ...]) -> str | Fork:
    """What follows the first `depth` tokens, which these labels share."""
    if len(by_ids) == 1:
        return next(iter(by_ids.values()))
    first = next(iter(by_ids))
    while len(first) > depth and all(ids[depth : depth + 1] == first[depth : depth + 1] for ids in by_ids):
        depth += 1
    groups: dict[tuple[int, ...], dict[tuple[int, ...], str]] = {}
    for ids, label in by_ids.items():
        groups.setdefault(ids[depth : depth + 1] or ends, {})[ids] = label
    return Fork(
        so_far=first[:depth],
        options=tuple(
            Option(token_ids=token_ids, leads_to=_fork(group, depth + 1, ends))
            for token_ids, group in groups.items()
        ),
    )


@dataclass(slots=True)
class Search:
    """The search for the most probable label, fork by fork.

    `fork` is what the model is asked about next; None once `label` is found, with its `probability`.
    """

    fork: Fork | None
    label: str = ""
    probability: float = 0.0
    # What was reached and not yet visited, the most probable first: minus log-probability, order, place.
    _open: list[tuple[float, int, str | Fork]] = field(default_factory=list)
    _reached: float = 0.0
    _order: int = 0

    def answer(self, log_probabilities: Sequence[float]) -> None:
        """Go on with the log-probabilities of the tokens in `fork.asked`.

        EngineError where they are no numbers, as a broken model gives.
        """
        assert self.fork is not None, "the label is found"
        numbers = iter(log_probabilities)
        weights = [_log_sum([next(numbers) for _ in option.token_ids]) for option in self.fork.options]
        total = _log_sum(weights)
        if not math.isfinite(total):
            raise EngineError(
                "the model gives no probabilities (NaN or infinite): its weights or dtype are wrong"
            )
        for option, weight in zip(self.fork.options, weights, strict=True):
            self._order += 1
            heapq.heappush(self._open, (self._reached + total - weight, self._order, option.leads_to))
        self._reached, _, place = heapq.heappop(self._open)
        if isinstance(place, Fork):
            self.fork = place
        else:
            self.fork, self.label, self.probability = None, place, math.exp(-self._reached)


def _log_sum(values: Sequence[float]) -> float:
    """The logarithm of the sum of these numbers, given as logarithms."""
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values)) if math.isfinite(top) else top
