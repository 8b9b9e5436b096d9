"""How long a failed request is tried again, which depends on what failed and on what has worked before.

Invariants: what has never worked is refused at once, because the user watches the start of a job and can mend
it. What has worked in the run is waited for, because giving up loses rows: an outage as long as patience
lasts, refused access for some minutes, an error that nobody knows for a shorter time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import tenacity

from magpie_ray.storage.deadline import Deadline
from magpie_ray.storage.failures import Verdict, lacks_credentials, verdict
from magpie_ray.utils.awake import awake_seconds

T = TypeVar("T")

# An outage of a store may last longer than half an hour. Engines go on meanwhile, until several finished
# partitions wait. Even then waiting is cheaper than an end, which loses the open partitions of all actors.
RETRY_SECONDS = 3600.0
# Credentials that are rotated and policies that propagate take seconds to minutes. What takes longer was
# taken away on purpose, or by mistake, and the user must hear of it.
DENIED_SECONDS = 300.0
# An error that is not known here is more often a bug or a refusal than an outage.
UNKNOWN_SECONDS = 120.0
# Open files and threads of other processes, or of other requests, end soon. Where they don't, a new process
# on another node does better than one that waits.
LIMIT_SECONDS = 120.0
# One attempt without a reply, where patience is shorter than that. The clients of object stores have shorter
# limits of their own; a mount that hangs has none.
REPLY_SECONDS = 120.0
# With hundreds of writers at once, waits must spread (full jitter), but not beyond what throttling needs.
MAX_WAIT_SECONDS = 20.0

# Verbs that need the same permission.
_KINDS = {"create": "write", "look for": "read"}


def kind(verb: str) -> str:
    """What a request needs permission for."""
    return _KINDS.get(verb, verb)


@dataclass(slots=True)
class Access:
    """What has worked on one output: which kinds of requests, in this process or in the one that pickled it.

    contact: whether anything has worked in this process.
    """

    worked: set[str] = field(default_factory=set)
    contact: bool = False

    def __reduce__(self) -> tuple[type["Access"], tuple[set[str]]]:
        return Access, (set(self.worked),)

    def note(self, verb: str) -> None:
        self.worked.add(kind(verb))
        self.contact = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """Bounds on the retries of one call, in seconds; max_wait: between two attempts."""

    retry: float = RETRY_SECONDS
    denied: float = DENIED_SECONDS
    unknown: float = UNKNOWN_SECONDS
    max_wait: float = MAX_WAIT_SECONDS

    def seconds(self, verb: str, exc: BaseException, access: Access) -> float:
        """How long a request that ends with this failure is tried again; 0: not at all."""
        found = verdict_on(verb, exc)
        if found is Verdict.PASSES:
            return self.retry
        if found is Verdict.LIMIT:  # also at first contact, which is with this machine and not the store
            return min(self.retry, LIMIT_SECONDS)
        if kind(verb) not in access.worked:
            # A client that finds no credentials where others do: their service is asked by all at once.
            no_answer = access.worked and lacks_credentials(exc)
            return min(self.retry, self.denied) if no_answer else 0.0
        if found is Verdict.DENIED and (access.contact or lacks_credentials(exc)):
            return min(self.retry, self.denied)
        if found is Verdict.UNKNOWN:  # an altered reply may raise anything in a client
            return min(self.retry, self.unknown)
        return 0.0


def verdict_on(verb: str, exc: BaseException) -> Verdict:
    """The verdict on a failure of that verb. A write finds no place only where access to it is gone."""
    found = verdict(exc)
    is_missing = isinstance(exc, FileNotFoundError) and found is Verdict.FINAL
    return Verdict.DENIED if is_missing and kind(verb) == "write" else found


def call_with_retries(
    attempt: Callable[[], T],
    *,
    verb: str,
    patience: Patience,
    access: Access,
    deadline: Deadline,
    on_retry: Callable[[BaseException, float, float], None],
) -> T:
    """What an attempt returns. Raises what the last attempt raised.

    on_retry: called before each wait with the failure, the seconds of the wait, and those of all patience.
    """
    start = awake_seconds()  # a process that is suspended for an hour does not try for an hour
    since = dict[Verdict, float]()  # when each kind of failure began

    def failure_of(state: tenacity.RetryCallState) -> BaseException:
        error = state.outcome.exception() if state.outcome else None
        assert error is not None
        return error

    def out_of_time(state: tenacity.RetryCallState) -> bool:
        error = failure_of(state)
        now = awake_seconds()
        began = since.setdefault(verdict_on(verb, error), now)
        left = min(began + patience.seconds(verb, error, access), start + patience.retry) - now
        return state.upcoming_sleep >= min(left, deadline.seconds_left)

    def announce(state: tenacity.RetryCallState) -> None:
        error = failure_of(state)
        on_retry(error, state.upcoming_sleep, patience.seconds(verb, error, access))

    result = tenacity.Retrying(
        stop=out_of_time,
        sleep=deadline.sleep,
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=patience.max_wait),
        retry=tenacity.retry_if_exception(lambda exc: patience.seconds(verb, exc, access) > 0),
        before_sleep=announce,
        reraise=True,
    )(lambda: deadline.run(attempt, most_seconds=max(REPLY_SECONDS, patience.retry)))
    access.note(verb)
    return result
