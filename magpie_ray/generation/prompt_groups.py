"""What became of the attempts at rows with the same system prompt and sampling settings: a prompt group.

A draw is an attempt from the first turn, together with those that continue after its turns; draws of a group
are independent. Invariants: outcomes count in the order in which draws started, because those that end first
are the shortest, and all of them may be bad where few are. For the same reason, draws at discarded rows that
have not counted yet never count. The groups that are kept are bounded, whatever a build's prompts are.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from magpie_ray.acceptance import remedy
from magpie_ray.generation.sequential_tests import AcceptRateTest, group_false_alarms
from magpie_ray.types import Rejection, Role, SystemPrompt
from magpie_ray.utils.text import shortened

# A group that is not used any more makes room for a new one.
_MOST_GROUPS = 1024
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What rows of a group share. sampling_key: None where all rows of the build do."""

    system_prompt: SystemPrompt | None
    sampling_key: int | None

    def __str__(self) -> str:
        """As the end of a sentence about attempts; "" for a build with one group."""
        words = []
        if self.system_prompt:
            key, text = self.system_prompt.key, shortened(self.system_prompt.text, _SHOWN_CHARACTERS)
            words.append(f"system_prompt{f'.{key}' if key is not None else ''} ({text!r})")
        if self.sampling_key is not None:
            words.append(f"sampling_key {self.sampling_key}")
        return " with " + " and ".join(words) if words else ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. reason: None where it was accepted; else of a message with this role and turn."""

    reason: str | None = None
    role: Role = "user"
    turn: int = 0
    example: str = ""

    @classmethod
    def of_rejection(cls, rejection: Rejection) -> Self:
        return cls(rejection.reason, rejection.role, rejection.turn, rejection.example)


@dataclass(slots=True, eq=False)
class Draw:
    """A draw at a row, under way until it `has_ended`. outcome: None where it never counts."""

    key: GroupKey
    row_id: int
    has_ended: bool = False
    outcome: Outcome | None = None

    def end(self, outcome: Outcome | None) -> None:
        self.has_ended, self.outcome = True, outcome


@dataclass(slots=True)
class Reasons:
    """Rejections by reason and role, with the first example of each."""

    counts: Counter[tuple[str, Role]] = field(default_factory=Counter)
    examples: dict[tuple[str, Role], Outcome] = field(default_factory=dict)

    def note(self, outcome: Outcome) -> None:
        if outcome.reason is not None:
            kind = outcome.reason, outcome.role
            self.counts[kind] += 1
            self.examples.setdefault(kind, outcome)

    def __str__(self) -> str:
        """Each reason with its count, an example and a remedy; the most frequent first."""
        lines = []
        for (reason, role), times in self.counts.most_common():
            first = self.examples[reason, role]
            lines += [
                f"  {times:4} {reason}, the {role}'s message, as in turn {first.turn}: {first.example!r}",
                f"       what to try: {remedy(reason, role)}.",
            ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A group that is accepted too seldom. draws: the last ones, which show it; reasons: of those."""

    group: str
    draws: int
    reasons: Reasons

    @property
    def rejected(self) -> int:
        return self.reasons.counts.total()


class PromptGroup:
    """Counts of a group's draws.

    name: for messages. test: None where no rate is asked for.
    """

    def __init__(self, name: str, test: AcceptRateTest | None) -> None:
        self.accepted = self.rejected = 0
        self._name, self._test = name, test
        self._recent, self._reasons = 0, Reasons()  # draws since the test was calm
        self._uncounted: deque[Draw] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether no draw is under way."""
        return not self._uncounted

    def start(self, draw: Draw) -> None:
        """The draw has started."""
        self._uncounted.append(draw)

    def withdraw(self, rows: range) -> None:
        """Draws at these rows that have not counted yet never count."""
        for draw in self._uncounted:
            if draw.row_id in rows:
                draw.end(None)

    def count(self) -> Shortfall | None:
        """Count the draws that have ended, up to the first that has not. Returns what they show."""
        while self._uncounted and self._uncounted[0].has_ended:
            outcome = self._uncounted.popleft().outcome
            if outcome is not None and self._note(outcome):
                return Shortfall(self._name, self._recent, self._reasons)
        return None

    def _note(self, outcome: Outcome) -> bool:
        """Note the next outcome. Returns whether the group is accepted too seldom."""
        accepted = outcome.reason is None
        self.accepted += accepted
        self.rejected += not accepted
        if self._test is None:
            return False
        falls_short = self._test.note(accepted=accepted)
        if self._test.is_calm:
            self._recent, self._reasons = 0, Reasons()
        else:
            self._recent += 1
            self._reasons.note(outcome)
        return falls_short


class PromptGroups:
    """The groups of a build on one engine, and all of its rows together.

    rate: the least share of its draws that a group must accept; 0 asks for none. groups: of the whole build.
    """

    def __init__(self, rate: float, *, groups: int) -> None:
        self._rate, self._false_alarms = rate, group_false_alarms(groups)
        self._groups: OrderedDict[GroupKey, PromptGroup] = OrderedDict()
        # Where groups have few draws each, all together still show a model that writes nothing of use.
        everything = " with all system prompts and sampling settings together"
        self._together = self._new_group(everything) if groups > 1 else None

    def of(self, key: GroupKey) -> PromptGroup:
        """The group."""
        return self._groups.get(key) or self._new_group(str(key))

    def start(self, draw: Draw) -> None:
        """The draw has started."""
        group = self._groups.setdefault(draw.key, self.of(draw.key))
        self._groups.move_to_end(draw.key)
        group.start(draw)
        if self._together:
            self._together.start(draw)
        self._make_room()

    def end(self, draw: Draw, outcome: Outcome) -> Shortfall | None:
        """The draw has ended. Returns a group that is accepted too seldom."""
        draw.end(outcome)
        return _first_shortfall([group for group in (self._groups[draw.key], self._together) if group])

    def discard(self, rows: range) -> Shortfall | None:
        """The rows are discarded. Returns a group that is accepted too seldom."""
        groups = [group for group in (*self._groups.values(), self._together) if group]
        for group in groups:
            group.withdraw(rows)
        return _first_shortfall(groups)

    def _make_room(self) -> None:
        """Forget groups that were not used for the longest time, except those with draws under way."""
        for _ in range(2):  # of which one is new
            if len(self._groups) > _MOST_GROUPS:
                oldest, group = next(iter(self._groups.items()))
                if group.is_idle:
                    del self._groups[oldest]
                else:
                    self._groups.move_to_end(oldest)

    def _new_group(self, name: str) -> PromptGroup:
        test = AcceptRateTest(self._rate, false_alarms=self._false_alarms) if self._rate else None
        return PromptGroup(name, test)


def _first_shortfall(groups: Iterable[PromptGroup]) -> Shortfall | None:
    """Count what has ended in all of these groups."""
    return next(filter(None, [group.count() for group in groups]), None)
