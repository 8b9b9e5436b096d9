"""When to give up: a row is out of attempts, or an engine accepts too few of its first attempts.

Invariants: once enough of the first attempts are accepted, only a row out of attempts ends the job. A
finished or discarded row has no part in RowExhaustedError; every rejected trial attempt counts for
AcceptRateError.
"""

from collections import Counter
from collections.abc import Sequence

from magpie_ray.acceptance import remedy
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.errors import AcceptRateError, RowExhaustedError
from magpie_ray.types import Rejection

# About one batch, so a base model that never ends its turns is reported after max_tokens engine steps. Where
# two attempts in ten are accepted, chance makes it fewer than one in ten in one engine start of 2,000.
TRIAL_ATTEMPTS = 128

_SHOW_REJECTS = "`magpie-ray show OUTPUT --rejects` shows more of them."


class EarlyStop:
    """Counts rejections, and raises when going on would not help.

    acceptance: has the limits. With min_accept_rate 0 only a row out of attempts stops.
    """

    def __init__(self, acceptance: AcceptanceConfig) -> None:
        self._acceptance = acceptance
        self._rejections: dict[int, list[Rejection]] = {}  # of unfinished rows, by row id
        # The attempts that start first, by row id and number. Those that end first are the shortest: all of
        # them may be empty where one in ten of a large batch is.
        self._trial = set[tuple[int, int]]()
        self._rejected_trial: list[Rejection] = []

    def start(self, row_id: int, attempt: int) -> None:
        """An attempt has started."""
        if len(self._trial) < TRIAL_ATTEMPTS:
            self._trial.add((row_id, attempt))

    def reject(self, rejection: Rejection) -> None:
        """An attempt is rejected. RowExhaustedError or AcceptRateError when it is one too many."""
        rejections = self._rejections.setdefault(rejection.row_id, [])
        rejections.append(rejection)
        if len(rejections) == self._acceptance.max_attempts:
            raise RowExhaustedError(
                f"row {rejection.row_id} was rejected {len(rejections)} times (acceptance.max_attempts):\n"
                f"{_table(rejections)}\n{_SHOW_REJECTS} acceptance.max_attempts may be raised on this build; "
                "other settings need another output.path."
            )
        if (rejection.row_id, rejection.attempt) not in self._trial:
            return
        self._rejected_trial.append(rejection)
        min_accept_rate = self._acceptance.min_accept_rate
        if len(self._rejected_trial) > TRIAL_ATTEMPTS * (1 - min_accept_rate):
            raise AcceptRateError(
                f"{len(self._rejected_trial)} of an engine's first {TRIAL_ATTEMPTS} attempts were rejected; "
                f"acceptance.min_accept_rate is {min_accept_rate:g}:\n{_table(self._rejected_trial)}\n"
                f"{_SHOW_REJECTS} Other settings need another output.path, or this one without its files; "
                "acceptance.min_accept_rate may be lowered on this build."
            )

    def forget(self, row_id: int) -> None:
        """The row is finished or discarded."""
        self._rejections.pop(row_id, None)

    def withdraw(self, row_id: int, attempt: int) -> None:
        """The attempt ends without a verdict."""
        self._trial.discard((row_id, attempt))


def _table(rejections: Sequence[Rejection]) -> str:
    """Each reason with its count, an example and a remedy; the most frequent first."""
    lines = []
    for (reason, role), times in Counter((r.reason, r.role) for r in rejections).most_common():
        example = next(r for r in rejections if (r.reason, r.role) == (reason, role))
        lines += [
            f"  {times:4} {reason}, the {role}'s message, as in turn {example.turn}: {example.example!r}",
            f"       what to try: {remedy(reason, role)}.",
        ]
    return "\n".join(lines)
