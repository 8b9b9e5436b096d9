"""What is said of a request that failed: a line of the log before the next attempt, the error at the end.

Invariant: no text holds a credential of the storage options or the environment.
"""

import logging
from collections.abc import Mapping

from magpie_ray.errors import BlockedError, NoRoomError, StorageError
from magpie_ray.storage.failures import is_full, remedy, scrubbed

log = logging.getLogger(__name__)


def log_retry(
    error: BaseException,
    operation: str,
    wait_seconds: float,
    patience_seconds: float,
    *,
    denied: bool,
    options: Mapping[str, object],
) -> None:
    """Log that the operation failed and is tried again, loudly where somebody has to mend access."""
    text = scrubbed(error, options)
    if denied:
        log.error(
            "Access to the output is refused, though it worked before: could not %s (%s). %s This run waits "
            "for up to %.0f s; trying again in %.1f s",
            operation,
            text,
            remedy(error),
            patience_seconds,
            wait_seconds,
        )
    else:
        log.warning("Could not %s (%s); trying again in %.1f s", operation, text, wait_seconds)


def refusal_of(
    error: Exception, operation: str, *, tried_seconds: float | None, options: Mapping[str, object]
) -> StorageError:
    """The error of ours for what a library raised. tried_seconds: None where it was not tried again."""
    kind = NoRoomError if is_full(error) else StorageError
    kind = BlockedError if isinstance(error, IsADirectoryError) else kind
    tried = "" if tried_seconds is None else f" (tried for {tried_seconds:.0f} s)"
    return kind(f"Could not {operation}: {scrubbed(error, options)}{tried}. {remedy(error)}")
