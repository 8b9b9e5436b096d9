"""A data set's repository on the Hugging Face hub: what it holds, and commits to it.

What always holds: whatever goes wrong on the way leaves as a HubError with a remedy, in which no token is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1, sha256
from typing import TYPE_CHECKING, Any, TypeVar

from magpie_ray.errors import ConfigError, HubError
from magpie_ray.utils.redaction import scrub

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

T = TypeVar("T")

_DATASET = "dataset"
_LOG_IN = (
    "set HF_TOKEN to a token that may write, from https://huggingface.co/settings/tokens, or `hf auth login`"
)
_REMEDIES = {
    0: "check the network, then run the same command again",
    401: f"the token is missing, expired or not valid for it: {_LOG_IN}",
    403: f"the token may not write there: {_LOG_IN}, of somebody who may",
    404: "there is no such repository or revision, or the token may not see it: check the spelling",
    409: "somebody else changes the repository at the same time: push again",
    412: "somebody else changes the repository at the same time: push again",
    413: "it is more than the hub takes at once",
    429: "the hub's rate limit is reached: wait some minutes and push again, it goes on where it ended",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """One there: its bytes, and their hash; of a file in Git itself that is Git's own."""

    size: int
    sha256: str | None
    git_hash: str

    def holds(self, data: bytes) -> bool:
        """Whether it is these bytes."""
        if len(data) != self.size:
            return False
        if self.sha256:
            return sha256(data).hexdigest() == self.sha256
        return sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == self.git_hash


class Hub:
    """One repository, at one revision. Takes the token from the environment or from `hf auth login`."""

    def __init__(self, repo_id: str, *, revision: str | None = None) -> None:
        """ConfigError for an id that can't be one."""
        # Slow to import.
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import disable_progress_bars, validate_repo_id  # type: ignore[attr-defined]

        with suppress(HFValidationError):
            validate_repo_id(repo_id)
            if repo_id.count("/") == 1:
                self.repo_id, self._revision = repo_id, revision
                self._token = get_token()
                disable_progress_bars()
                self._api = HfApi(token=self._token)
                return
        raise ConfigError(f"REPO_ID: got {repo_id!r}, must be OWNER/NAME, such as my-name/magpie-demo")

    @property
    def url(self) -> str:
        """Where people look at it."""
        return f"{self._api.endpoint}/datasets/{self.repo_id}"

    def is_private(self) -> bool | None:
        """Whether it is; None when there is none that the token may see."""
        info: Any = self._ask(lambda: self._api.repo_info(self.repo_id, repo_type=_DATASET), missing=None)
        return None if info is None else bool(info.private)

    def create(self, *, private: bool) -> None:
        """Make the repository, unless it is there, and its revision."""
        if self._token is None:
            raise HubError(f"Can't push to {self.url}: there is no token: {_LOG_IN}")
        self._call(
            lambda: self._api.create_repo(self.repo_id, repo_type=_DATASET, private=private, exist_ok=True)
        )
        if revision := self._revision:
            self._call(
                lambda: self._api.create_branch(
                    self.repo_id, repo_type=_DATASET, branch=revision, exist_ok=True
                )
            )

    def files(self) -> Mapping[str, HubFile]:
        """What is there, by path; nothing when there is no such repository or revision."""

        def read() -> dict[str, HubFile]:
            from huggingface_hub.hf_api import RepoFile

            tree = self._api.list_repo_tree(
                self.repo_id, recursive=True, revision=self._revision, repo_type=_DATASET
            )
            return {
                item.path: HubFile(
                    size=item.size, sha256=item.lfs.sha256 if item.lfs else None, git_hash=item.blob_id
                )
                for item in tree
                if isinstance(item, RepoFile)
            }

        return self._ask(read, missing={})

    def upload(self, files: Mapping[str, bytes]) -> "list[CommitOperationAdd]":
        """Send files, which no reader sees before they are committed; the bytes are not held any longer."""
        from huggingface_hub import CommitOperationAdd

        additions = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in files.items()
        ]
        self._call(
            lambda: self._api.preupload_lfs_files(
                self.repo_id, additions, repo_type=_DATASET, revision=self._revision
            )
        )
        return additions

    def commit(
        self, additions: "Sequence[CommitOperationAdd]", *, delete: Sequence[str], message: str
    ) -> None:
        """All of these appear, and those that are to be deleted go, in one step."""
        from huggingface_hub import CommitOperationDelete

        deletions = [CommitOperationDelete(path_in_repo=path) for path in delete]
        self._call(
            lambda: self._api.create_commit(
                self.repo_id,
                [*additions, *deletions],
                commit_message=message,
                repo_type=_DATASET,
                revision=self._revision,
            )
        )

    def _ask(self, action: Callable[[], T], *, missing: T) -> T:
        """What is there, or `missing`. Without a token the hub says 401 of what it does not have."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        def attempt() -> T:
            try:
                return action()
            except (RepositoryNotFoundError, RevisionNotFoundError):
                return missing

        return self._call(attempt)

    def _call(self, action: Callable[[], T]) -> T:
        # The library lets exceptions of several others through, so this one edge catches all; none is
        # swallowed.
        try:
            return action()
        except Exception as exc:
            text = scrub(_told(exc), [self._token] if self._token else [])
            remedy = _REMEDIES.get(_status(exc), "what was committed stays; push again to go on")
            raise HubError(f"{self.url} could not be reached or refused: {remedy}. It said: {text}") from exc


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """An exception and those behind it."""
    behind: BaseException | None = exc
    while behind:
        yield behind
        behind = behind.__cause__


def _told(exc: BaseException) -> str:
    """What each of them says, once where they say the same."""
    return " ".join(dict.fromkeys(" ".join(str(error).split()) for error in _chain(exc)))


def _status(exc: BaseException) -> int:
    """What the hub answered with; 0 for no answer."""
    answers = (getattr(error, "response", None) for error in _chain(exc))
    return next((int(answer.status_code) for answer in answers if answer is not None), 0)
