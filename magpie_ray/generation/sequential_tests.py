"""Tests that tell a cause from bad luck, at any moment and as often as wanted.

Pure arithmetic. Each test keeps a likelihood ratio against "chance alone". By Ville's inequality the ratio
ever reaches 1/p with a probability of at most p, however often it is looked at and whatever the true rate is
(Ramdas et al., Game-theoretic statistics and safe anytime-valid inference, 2023). Logarithms are natural.

Invariants: without attempts there is no evidence; the bounds hold for attempts that are independent draws and
are noted in the order of their starts, because those that end first are the shortest.
"""

import math
from dataclasses import dataclass

# Chance alone ends one build of 10,000, if the build has the most rows that a build may have. The evidence of
# a row is a product of two ratios, its own and its group's, which grow in any order. Such a product ever
# reaches x with a probability of at most (1 + log x) / x.
_FALSE_ALARMS, _MOST_ROWS, _TWO_RATIOS = 1e-4, 1e12, 40
_ROW_EVIDENCE = math.log(_MOST_ROWS / _FALSE_ALARMS * _TWO_RATIOS)
# Chance alone stops one build of 10,000 where 20 groups on 500 engines are all accepted at the least rate.
_GROUPS, _GROUP_FALSE_ALARMS = 20, 1e-8

# True rates that are tested for, as shares of the least rate, and what each adds to the false alarms. The
# first finds a group that accepts nothing, the last one that accepts four fifths of what it should.
_ALTERNATIVES = ((0.01, 0.8), (0.3, 0.1), (0.8, 0.1))


def group_false_alarms(groups: int) -> float:
    """The probability with which chance may stop one of so many groups on one engine."""
    return _GROUP_FALSE_ALARMS * _GROUPS / max(groups, _GROUPS)


def differs(failures: int, *, accepted: int, rejected: int, enough: float = _ROW_EVIDENCE) -> bool:
    """Whether a row that failed so often, and never succeeded, has another reject rate than its group.

    accepted, rejected: of the group's attempts. Where they include the row's own, more failures are needed.
    enough: evidence, the logarithm of the ratio.
    """
    if not failures:
        return False
    all_rejected = rejected + failures
    total = all_rejected + accepted
    # The likelihood where all have one rate, the likeliest; and where the group's rate is anything, and the
    # row is always rejected.
    one_rate = _times_log(all_rejected, all_rejected / total) + _times_log(accepted, accepted / total)
    apart = math.lgamma(rejected + 1) + math.lgamma(accepted + 1) - math.lgamma(rejected + accepted + 2)
    return apart - one_rate >= enough


def falls_short(failures: int, *, rate: float) -> bool:
    """Whether a row that failed so often, and never succeeded, is accepted less often than `rate`."""
    return -failures * _log_of_rest(rate) >= _ROW_EVIDENCE


def _times_log(count: int, share: float) -> float:
    return count * math.log(share) if count else 0.0


def _log_of_rest(rate: float) -> float:
    return math.log1p(-min(rate, 1 - 1e-12))


@dataclass(slots=True)
class _Cusum:
    """A CUSUM statistic: the evidence for one rate below the least rate since it was last zero."""

    on_accept: float
    on_reject: float
    enough: float
    evidence: float = 0.0
    restarts: int = 1

    def note(self, *, accepted: bool) -> bool:
        """Note an attempt. Returns whether there is enough evidence."""
        self.evidence += self.on_accept if accepted else self.on_reject
        if self.evidence <= 0:
            self.evidence = 0.0
            self.restarts += 1
        # The inverse squares of all restarts sum to pi**2 / 6.
        return self.evidence >= self.enough + math.log(self.restarts**2 * math.pi**2 / 6)


class AcceptRateTest:
    """Whether a group of attempts is accepted less often than `rate`, from the start or from some time on.

    false_alarms: the probability with which chance may ever stop a group that is accepted at `rate`. A group
    that accepts nothing is found within 200 attempts where `rate` is 0.1 and a build has up to 100 groups.
    """

    def __init__(self, rate: float, *, false_alarms: float = _GROUP_FALSE_ALARMS) -> None:
        self._statistics = [
            _Cusum(
                on_accept=math.log(share),
                on_reject=_log_of_rest(rate * share) - _log_of_rest(rate),
                enough=-math.log(false_alarms * part),
            )
            for share, part in _ALTERNATIVES
        ]

    def note(self, *, accepted: bool) -> bool:
        """Note an attempt. Returns whether the attempts since the test was last calm show too low a rate."""
        found = [statistic.note(accepted=accepted) for statistic in self._statistics]
        return any(found)

    @property
    def is_calm(self) -> bool:
        """Whether nothing speaks for less than the rate."""
        return not any(statistic.evidence for statistic in self._statistics)
