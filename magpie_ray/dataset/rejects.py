"""Samples of rejected messages, one object of JSON lines for each partition that has any.

Invariants: the sample of a committed partition is there before its rows. Where several workers had a
partition, the sample of the one whose rows stay is the one that stays: before its rows a worker only creates
a sample; after them it replaces another's by its own, if it has one. Where rows were there already it deletes
its own. A sample without rows does no harm.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter

from magpie_ray.dataset.layout import REJECTS_KEY, REJECTS_PREFIX, rejects_key
from magpie_ray.errors import AlreadyExistsError, ConfigError, CorruptBuildError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition, Rejection

Reject = dict[str, object]

# The fields of a stored line. messages: those before the rejected one; text: the rejected message.
_FIELDS: dict[str, Callable[[Rejection], object]] = {
    "row_id": lambda rejection: rejection.row_id,
    "attempt": lambda rejection: rejection.attempt,
    "turn": lambda rejection: rejection.turn,
    "role": lambda rejection: rejection.role,
    "reason": lambda rejection: rejection.reason,
    "system_prompt": lambda rejection: rejection.system_prompt and rejection.system_prompt.text,
    "system_prompt_key": lambda rejection: rejection.system_prompt and rejection.system_prompt.key,
    "input_id": lambda rejection: rejection.input_id,
    "messages": lambda rejection: [{"role": m.role, "content": m.text} for m in rejection.messages],
    "text": lambda rejection: rejection.text,
}
REJECT_FIELDS = tuple(_FIELDS)


class RejectsSample:
    """The first `per_reason` rejections for each reason."""

    def __init__(self, per_reason: int) -> None:
        self._per_reason = per_reason
        self._times = Counter[str]()
        self._kept: list[Rejection] = []

    def note(self, rejection: Rejection) -> None:
        """Keep the rejection, unless there are enough for its reason."""
        self._times[rejection.reason] += 1
        if self._times[rejection.reason] <= self._per_reason:
            self._kept.append(rejection)

    def among(self, rows: range) -> list[Rejection]:
        """The kept rejections of these rows, in the order of rows and attempts."""
        kept = (rejection for rejection in self._kept if rejection.row_id in rows)
        return sorted(kept, key=lambda rejection: (rejection.row_id, rejection.attempt))


def create_sample(storage: Storage, partition: Partition, rejections: Sequence[Rejection]) -> bool:
    """Store the sample of a partition. False when another worker's is there, which stays.

    Writes nothing where the sample is empty.
    """
    if rejections:
        try:
            storage.create(rejects_key(partition), _lines(rejections))
        except AlreadyExistsError:
            return False
    return True


def delete_sample(storage: Storage, partition: Partition, rejections: Sequence[Rejection]) -> None:
    """Delete this sample of a partition; another's stays."""
    key = rejects_key(partition)
    if storage.exists(key) and storage.read(key) == _lines(rejections):
        storage.delete(key)


def replace_sample(storage: Storage, partition: Partition, rejections: Sequence[Rejection]) -> None:
    """Store the sample of a partition in place of another's; writes nothing where it is empty."""
    if rejections:
        storage.replace(rejects_key(partition), _lines(rejections))


def _lines(rejections: Sequence[Rejection]) -> bytes:
    records = [{name: value(rejection) for name, value in _FIELDS.items()} for rejection in rejections]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    return "\n".join([*lines, ""]).encode("utf-8", "backslashreplace")


def reject_keys(storage: Storage) -> list[str]:
    """The keys of the samples, in the order of rows."""
    listed = storage.list_objects(REJECTS_PREFIX)
    return [item.key for item in listed if REJECTS_KEY.fullmatch(item.key)]


def read_rejects(storage: Storage, keys: Iterable[str] | None = None) -> Iterator[Reject]:
    """The samples under these keys, or all, in the order of rows. CorruptBuildError names a damaged one."""
    for key in reject_keys(storage) if keys is None else keys:
        # Not splitlines: generated text may hold other characters that end lines. And not pydantic, which
        # refuses the lone surrogates that json writes.
        for line in filter(None, storage.read(key).split(b"\n")):
            try:
                reject = {"input_id": None, **json.loads(line)}  # earlier versions did not write it
                yield {name: reject[name] for name in REJECT_FIELDS}
            except (ValueError, LookupError, TypeError) as exc:
                raise CorruptBuildError(
                    f"{storage.display(key)} is damaged or foreign ({exc}): it is only a sample of what was "
                    "rejected, and may be deleted"
                ) from exc


def by_reason(rejects: Iterable[Reject], per_reason: int) -> list[Reject]:
    """The first `per_reason` rejects for each reason, the reasons in the order in which they appear."""
    groups: dict[object, list[Reject]] = {}
    for reject in rejects:
        group = groups.setdefault(reject["reason"], [])
        if len(group) < per_reason:
            group.append(reject)
    return [reject for group in groups.values() for reject in group]


def select_rejects(
    storage: Storage,
    per_reason: int,
    *,
    reason: str | None = None,
    row: int | None = None,
    where: Callable[[Iterator[Reject]], Iterator[Reject]] = lambda rejects: rejects,
) -> list[Reject]:
    """The first `per_reason` rejects for each reason, or for one. ConfigError if that reason is unknown.

    row: only rejects of this row. where: keeps those that are wanted.
    """
    reasons = set[str]()

    def is_selected(reject: Reject) -> bool:
        reasons.add(str(reject["reason"]))
        return reason in (None, reject["reason"]) and row in (None, reject["row_id"])

    selected = by_reason(where(filter(is_selected, read_rejects(storage))), per_reason)
    if reason is not None and reason not in reasons:
        known = f"there are {', '.join(sorted(reasons))}" if reasons else "there are no rejects at all"
        raise ConfigError(f"--reason: no reject that was kept has the reason {reason!r}; {known}")
    return selected


def in_turns(files: Iterable[Iterable[Reject]]) -> list[Reject]:
    """The first reject for each reason in every file, in the order of files, then the second, and so on."""
    ranked = list[tuple[int, Reject]]()
    for rejects in files:
        times = Counter[object]()
        for reject in rejects:
            ranked.append((times[reject["reason"]], reject))
            times[reject["reason"]] += 1
    return [reject for _, reject in sorted(ranked, key=itemgetter(0))]
