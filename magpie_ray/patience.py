"""When more of the same is no use: a row out of attempts, or a role of whose messages none is ever accepted.

What always holds: a role of which one message was accepted is never given up on as a whole; what is forgotten
or withdrawn (finished, discarded) has no part in any error.
"""

from collections import Counter
from collections.abc import Sequence

from magpie_ray.acceptance import remedy
from magpie_ray.errors import RowExhaustedError
from magpie_ray.types import Rejection, Role

# About one batch, so a base model that never ends its turns is told after max_tokens engine steps. Where one
# message in ten is accepted, so many rejections in a row happen to one engine start in 700,000.
TRIAL_MESSAGES = 128


class Patience:
    """Keeps account of rejections. Raises RowExhaustedError when going on would not help."""

    def __init__(self, *, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._failures: dict[int, list[Rejection]] = {}  # of rows that are not finished yet
        self._trials: dict[Role, _Trial] = {"user": _Trial(), "assistant": _Trial()}

    def asked(self, role: Role, request_id: int) -> None:
        """A message of the role is being generated."""
        if role in self._trials:
            self._trials[role].asked(request_id)

    def accepted(self, role: Role) -> None:
        """A message of the role counts: there is nothing wrong with all of them."""
        self._trials.pop(role, None)

    def rejected(self, rejection: Rejection, request_id: int) -> None:
        """An attempt failed. RowExhaustedError when it was the row's last, or one of all too many."""
        failures = self._failures.setdefault(rejection.row_id, [])
        failures.append(rejection)
        if len(failures) == self._max_attempts:
            raise RowExhaustedError(
                f"row {rejection.row_id} was rejected {len(failures)} times (acceptance.max_attempts), "
                f"{_what_prevails(failures)} acceptance.max_attempts may be raised on this build; other "
                "settings need another output.path."
            )
        trial = self._trials.get(rejection.role)
        if trial and trial.has_failed(rejection, request_id):
            raise RowExhaustedError(
                f"none of the first {len(trial.rejections)} messages of the {rejection.role} was accepted, "
                f"{_what_prevails(trial.rejections)} New settings need another output.path, or this one "
                "without its files."
            )

    def forget(self, row_id: int) -> None:
        """The row is finished, or not wanted any more."""
        self._failures.pop(row_id, None)

    def withdraw(self, request_id: int) -> None:
        """What this request was to generate will not be judged."""
        for trial in self._trials.values():
            trial.requests.discard(request_id)


class _Trial:
    """The messages of a role that were asked for first.

    Not those that ended first: these are the shortest, all empty where one in ten of a large batch is.
    """

    def __init__(self) -> None:
        self.requests: set[int] = set()
        self.rejections: list[Rejection] = []

    def asked(self, request_id: int) -> None:
        if len(self.requests) < TRIAL_MESSAGES:
            self.requests.add(request_id)

    def has_failed(self, rejection: Rejection, request_id: int) -> bool:
        """Whether this rejection, of that request, makes it all of them."""
        if request_id in self.requests:
            self.rejections.append(rejection)
        return len(self.rejections) == TRIAL_MESSAGES


def _what_prevails(failures: Sequence[Rejection]) -> str:
    """The reason most of them have, with an example and what to try; the middle of a sentence, and more."""
    [(prevailing, times)] = Counter(f.reason for f in failures).most_common(1)
    example = next(f for f in failures if f.reason == prevailing)
    return (
        f"{times} of them for {prevailing!r}. Example, the {example.role}'s message of "
        f"turn {example.turn}: {example.example!r}. What to try: {remedy(prevailing, example.role)}."
    )
