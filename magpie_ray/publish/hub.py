"""A dataset repository on the Hugging Face hub: its files, and commits to it.

Invariant: every failure leaves as a HubError with a remedy, and no HubError holds a token.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1, sha256
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from magpie_ray.errors import ConfigError, HubError
from magpie_ray.storage.failures import is_transient
from magpie_ray.utils.redaction import scrub

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

log = logging.getLogger(__name__)

T = TypeVar("T")

_TOO_MANY_REQUESTS = 429
# The hub counts commits by the hour. Other failures that may pass are waited out for some minutes.
_PATIENCE_SECONDS, _OUTAGE_SECONDS = 2 * 3600.0, 600.0
# Where the hub does not say how long.
_BACK_OFF = tenacity.wait_exponential(multiplier=30.0, max=600.0)

_DATASET = "dataset"
_LOG_IN = (
    "set HF_TOKEN to a token that may write, from https://huggingface.co/settings/tokens, or `hf auth login`"
)
_PUSH_AGAIN = "somebody else changes the repository at the same time: push again"
# By the status of the hub's answer; 0: no answer.
_REMEDIES = {
    0: "check the network, then run the same command again",
    401: f"the token is missing, expired or not valid for it: {_LOG_IN}",
    403: f"the token may not write there: {_LOG_IN}, of somebody who may",
    404: "there is no such repository or revision, or the token may not see it: check the spelling",
    409: _PUSH_AGAIN,
    412: _PUSH_AGAIN,
    413: "it is more than the hub takes at once",
    429: "the hub's rate limit is reached: wait an hour and push again, it continues where it ended",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file on the hub. sha256: of a large file. git_hash: Git's hash of a file that is in Git itself."""

    size: int
    sha256: str | None
    git_hash: str

    def holds(self, data: bytes) -> bool:
        """Whether the file consists of these bytes."""
        if len(data) != self.size:
            return False
        if self.sha256:
            return sha256(data).hexdigest() == self.sha256
        return sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == self.git_hash


class Hub:
    """One repository, at one revision. The token comes from the environment or from `hf auth login`.

    patience_seconds: how long a request waits in all while the hub answers that there are too many;
    outage_seconds: while it fails or gives no answer.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        patience_seconds: float = _PATIENCE_SECONDS,
        outage_seconds: float = _OUTAGE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """ConfigError for an invalid id of a repository."""
        # Slow to import.
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import disable_progress_bars, validate_repo_id  # type: ignore[attr-defined]

        try:
            validate_repo_id(repo_id)
            if repo_id.count("/") != 1:
                raise HFValidationError("there is no owner")
        except HFValidationError as exc:
            raise ConfigError(
                f"REPO_ID: got {repo_id!r}, must be OWNER/NAME, such as my-name/magpie-demo"
            ) from exc
        disable_progress_bars()
        self.repo_id, self._revision, self._token = repo_id, revision, get_token()
        self._api = HfApi(token=self._token)

        def out_of_time(state: tenacity.RetryCallState) -> bool:
            most = patience_seconds if _is_limited(state) else outage_seconds
            return state.idle_for + state.upcoming_sleep > most

        # A commit that is repeated changes nothing where the first one was made and its answer was lost.
        self._retrying = tenacity.Retrying(
            stop=out_of_time,
            wait=_seconds_to_wait,
            retry=tenacity.retry_if_exception(is_transient),
            before_sleep=_announce,
            sleep=sleep,
            reraise=True,
        )

    @property
    def url(self) -> str:
        """The repository's page."""
        return f"{self._api.endpoint}/datasets/{self.repo_id}"

    def is_private(self) -> bool | None:
        """Whether the repository is private; None for one that is missing or hidden from the token."""
        info: Any = self._look_up(self._api.repo_info, missing=None)
        return None if info is None else bool(info.private)

    def create(self, *, private: bool) -> bool:
        """Create the repository and its revision, unless they exist.

        Returns whether the revision is a branch that begins now: the hub makes it a copy of main.
        """
        if self._token is None:
            raise HubError(f"Can't push to {self.url}: there is no token: {_LOG_IN}")
        begins = self._revision is not None and not self.files()
        self._call(self._api.create_repo, private=private, exist_ok=True)
        if self._revision:
            self._call(self._api.create_branch, branch=self._revision, exist_ok=True)
        return begins

    def files(self) -> Mapping[str, HubFile]:
        """The files there by path; none where there is no such repository or revision."""
        from huggingface_hub.hf_api import RepoFile

        def tree(**arguments: Any) -> list[Any]:
            return list(self._api.list_repo_tree(**arguments))

        items: list[Any] = self._look_up(tree, missing=[], recursive=True, revision=self._revision)
        return {
            item.path: HubFile(
                size=item.size, sha256=item.lfs.sha256 if item.lfs else None, git_hash=item.blob_id
            )
            for item in items
            if isinstance(item, RepoFile)
        }

    def upload(self, files: Mapping[str, bytes]) -> "list[CommitOperationAdd]":
        """Send files. No reader sees them before they are committed; large ones leave this memory."""
        from huggingface_hub import CommitOperationAdd

        additions = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in files.items()
        ]
        self._call(self._api.preupload_lfs_files, additions=additions, revision=self._revision)
        return additions

    def commit(
        self, additions: "Sequence[CommitOperationAdd]", *, delete: Sequence[str], message: str
    ) -> None:
        """Add the uploaded files and delete the others in one step."""
        from huggingface_hub import CommitOperationDelete

        operations = [*additions, *(CommitOperationDelete(path_in_repo=path) for path in delete)]
        self._call(
            self._api.create_commit, operations=operations, commit_message=message, revision=self._revision
        )

    def _look_up(self, method: Callable[..., T], *, missing: T, **arguments: Any) -> T:
        """As `_call`; `missing` where the repository or the revision does not exist."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        def attempt(**arguments: Any) -> T:
            try:
                return method(**arguments)
            # The hub answers 401 about a missing repository if there is no token; it counts as this, too.
            except (RepositoryNotFoundError, RevisionNotFoundError):
                return missing

        return self._call(attempt, **arguments)

    def _call(self, method: Callable[..., T], **arguments: Any) -> T:
        """The result of a method of the API, for this repository. HubError for any failure."""
        try:
            return self._retrying(method, repo_id=self.repo_id, repo_type=_DATASET, **arguments)
        # huggingface_hub lets exceptions of several other libraries through. None is swallowed here.
        except Exception as exc:
            text = scrub(_message(exc), [self._token] if self._token else [])
            remedy = _REMEDIES.get(_status(exc), "the commits so far stay; push again to go on")
            raise HubError(f"{self.url} could not be reached or refused: {remedy}. It said: {text}") from exc


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """An exception and its causes."""
    cause: BaseException | None = exc
    while cause:
        yield cause
        cause = cause.__cause__


def _message(exc: BaseException) -> str:
    """The messages of the exception and its causes, without repetitions, on one line."""
    return " ".join(dict.fromkeys(" ".join(str(error).split()) for error in _chain(exc)))


def _answer(exc: BaseException) -> Any:
    """The hub's answer; None for no answer."""
    answers = (getattr(error, "response", None) for error in _chain(exc))
    return next((answer for answer in answers if answer is not None), None)


def _status(exc: BaseException) -> int:
    """The status of the hub's answer; 0 for no answer."""
    answer = _answer(exc)
    return 0 if answer is None else int(answer.status_code)


def _is_limited(state: tenacity.RetryCallState) -> bool:
    """Whether the hub answered that there were too many requests."""
    exc = state.outcome.exception() if state.outcome else None
    return exc is not None and _status(exc) == _TOO_MANY_REQUESTS


def _announce(state: tenacity.RetryCallState) -> None:
    what = "has reached its rate limit" if _is_limited(state) else "fails or does not answer"
    log.warning("the hub %s: the push goes on in %.0f s", what, state.upcoming_sleep)


def _seconds_to_wait(state: tenacity.RetryCallState) -> float:
    """As long as the hub's answer says, or half a minute and more each time."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    exc = state.outcome.exception() if state.outcome else None
    headers = getattr(_answer(exc), "headers", {}) if exc else {}
    after, limit = headers.get("Retry-After", "").strip(), parse_ratelimit_headers(headers)
    if after.isdigit():
        return float(after) + 1
    return limit.reset_in_seconds + 1.0 if limit else _BACK_OFF(state)
