"""A sample of what was thrown away, beside the data: `_magpie/rejects/`, one object a partition that has any.

JSON lines: row_id, attempt, turn, role, reason, system_prompt, system_prompt_key, messages (what the rejected
message followed, as role and content) and text (the message). What always holds: a committed partition's
sample is there before its rows are; a sample without rows does no harm, and is replaced by the next.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter

from magpie_ray.dataset.layout import REJECTS_PREFIX, rejects_key
from magpie_ray.errors import ConfigError, CorruptBuildError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition, Rejection

Reject = dict[str, object]

REJECT_FIELDS = (
    "row_id",
    "attempt",
    "turn",
    "role",
    "reason",
    "system_prompt",
    "system_prompt_key",
    "messages",
    "text",
)


class RejectsSample:
    """The first few rejections for each reason among those that are noted."""

    def __init__(self, per_reason: int) -> None:
        self._per_reason = per_reason
        self._times = Counter[str]()
        self._kept: list[Rejection] = []

    def note(self, rejection: Rejection) -> None:
        """One more, kept unless there are enough of its reason."""
        self._times[rejection.reason] += 1
        if self._times[rejection.reason] <= self._per_reason:
            self._kept.append(rejection)

    def among(self, rows: range) -> list[Rejection]:
        """Those kept that are of these rows, in the order of rows and attempts."""
        kept = (rejection for rejection in self._kept if rejection.row_id in rows)
        return sorted(kept, key=lambda rejection: (rejection.row_id, rejection.attempt))


def write_rejects(storage: Storage, partition: Partition, rejections: Sequence[Rejection]) -> None:
    """Put the sample of a partition beside the data; nothing where nothing was rejected."""
    if rejections:
        lines = [json.dumps(_fields(rejection), ensure_ascii=False) for rejection in rejections]
        storage.replace(rejects_key(partition), "\n".join([*lines, ""]).encode("utf-8", "backslashreplace"))


def reject_keys(storage: Storage) -> list[str]:
    """The objects that hold the samples, in the order of rows."""
    return [item.key for item in storage.list_objects(REJECTS_PREFIX)]


def read_rejects(storage: Storage, keys: Iterable[str] | None = None) -> Iterator[Reject]:
    """All samples, in the order of rows, or those of these keys. CorruptBuildError names a damaged one."""
    for key in reject_keys(storage) if keys is None else keys:
        # Not splitlines: generated text may hold other characters that end lines.
        for line in filter(None, storage.read(key).split(b"\n")):
            try:
                reject = json.loads(line)
                yield {name: reject[name] for name in REJECT_FIELDS}
            except (ValueError, LookupError, TypeError) as exc:
                raise CorruptBuildError(
                    f"{storage.display(key)} is damaged or foreign ({exc}): it is only a sample of what "
                    "was rejected, and may be deleted"
                ) from exc


def by_reason(rejects: Iterable[Reject], per_reason: int) -> list[Reject]:
    """The first few for each reason, the reasons in the order in which they appear."""
    found: dict[object, list[Reject]] = {}
    for reject in rejects:
        among = found.setdefault(reject["reason"], [])
        if len(among) < per_reason:
            among.append(reject)
    return [reject for among in found.values() for reject in among]


def select_rejects(
    storage: Storage, wanted: Callable[[Reject], bool], per_reason: int, reason: str | None = None
) -> list[Reject]:
    """The first few wanted for each reason, or for this one. ConfigError when nothing was rejected for it."""
    if reason is None:
        return by_reason(filter(wanted, read_rejects(storage)), per_reason)
    reasons = set[str]()

    def is_of_it(reject: Reject) -> bool:
        reasons.add(str(reject["reason"]))
        return reject["reason"] == reason and wanted(reject)

    found = by_reason(filter(is_of_it, read_rejects(storage)), per_reason)
    if reason not in reasons:
        there = f"there are {', '.join(sorted(reasons))}" if reasons else "there are no rejects at all"
        raise ConfigError(f"--reason: nothing that was kept was rejected for {reason!r}; {there}")
    return found


def in_turns(files: Iterable[Iterable[Reject]]) -> list[Reject]:
    """The first for each reason in every file, in the order of the files, then the second ones, and so on."""
    ranked = list[tuple[int, Reject]]()
    for rejects in files:
        times = Counter[object]()
        for reject in rejects:
            ranked.append((times[reject["reason"]], reject))
            times[reject["reason"]] += 1
    return [reject for _, reject in sorted(ranked, key=itemgetter(0))]


def _fields(rejection: Rejection) -> Reject:
    prompt = rejection.system_prompt
    values = (
        rejection.row_id,
        rejection.attempt,
        rejection.turn,
        rejection.role,
        rejection.reason,
        prompt.text if prompt else None,
        prompt.key if prompt else None,
        [{"role": message.role, "content": message.text} for message in rejection.messages],
        rejection.text,
    )
    return dict(zip(REJECT_FIELDS, values, strict=True))
