"""When more of the same is no use: a row out of attempts, or too few of the first attempts accepted.

What always holds: once enough of the first attempts have been accepted, only a row out of attempts ends the
job; what is forgotten or withdrawn (finished, discarded) has no part in any error.
"""

from collections import Counter
from collections.abc import Sequence

from magpie_ray.acceptance import remedy
from magpie_ray.errors import AcceptRateError, RowExhaustedError
from magpie_ray.types import Rejection

# About one batch, so a base model that never ends its turns is told after max_tokens engine steps. Where two
# attempts in ten are accepted, fewer than one in ten are by chance in one engine start of 2,000.
TRIAL_ATTEMPTS = 128

_MORE = "`magpie-ray show OUTPUT --rejects` shows more of them."


class EarlyStop:
    """Keeps account of rejections. Raises when going on would not help.

    min_accept_rate: what part of the first attempts has to be accepted; 0 for none.
    """

    def __init__(self, *, max_attempts: int, min_accept_rate: float) -> None:
        self._max_attempts = max_attempts
        self._min_accept_rate = min_accept_rate
        self._failures: dict[int, list[Rejection]] = {}  # of rows that are not finished yet
        # Those that began first. Not those that ended first: these are the shortest, all empty where one in
        # ten of a large batch is.
        self._trial = set[tuple[int, int]]()
        self._failed_trial: list[Rejection] = []

    def began(self, row_id: int, attempt: int) -> None:
        """An attempt is under way."""
        if len(self._trial) < TRIAL_ATTEMPTS:
            self._trial.add((row_id, attempt))

    def rejected(self, rejection: Rejection) -> None:
        """An attempt failed. Raises when it was the row's last, or one of all too many."""
        failures = self._failures.setdefault(rejection.row_id, [])
        failures.append(rejection)
        if len(failures) == self._max_attempts:
            raise RowExhaustedError(
                f"row {rejection.row_id} was rejected {len(failures)} times (acceptance.max_attempts):\n"
                f"{_table(failures)}\n{_MORE} acceptance.max_attempts may be raised on this build; "
                "other settings need another output.path."
            )
        if (rejection.row_id, rejection.attempt) not in self._trial:
            return
        self._failed_trial.append(rejection)
        if len(self._failed_trial) > TRIAL_ATTEMPTS * (1 - self._min_accept_rate):
            raise AcceptRateError(
                f"{len(self._failed_trial)} of an engine's first {TRIAL_ATTEMPTS} attempts were rejected; "
                f"acceptance.min_accept_rate is {self._min_accept_rate:g}:\n{_table(self._failed_trial)}\n"
                f"{_MORE} Other settings need another output.path, or this one without its files; "
                "acceptance.min_accept_rate may be lowered on this build."
            )

    def forget(self, row_id: int) -> None:
        """The row is finished, or not wanted any more."""
        self._failures.pop(row_id, None)

    def withdraw(self, row_id: int, attempt: int) -> None:
        """What becomes of this attempt will not be known."""
        self._trial.discard((row_id, attempt))


def _table(failures: Sequence[Rejection]) -> str:
    """Each reason with how often it was one, an example and what to try; the most frequent first."""
    lines = []
    for (reason, role), times in Counter((f.reason, f.role) for f in failures).most_common():
        example = next(f for f in failures if (f.reason, f.role) == (reason, role))
        lines += [
            f"  {times:4} {reason}, the {role}'s message, as in turn {example.turn}: {example.example!r}",
            f"       what to try: {remedy(reason, role)}.",
        ]
    return "\n".join(lines)
