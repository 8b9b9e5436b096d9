"""Who writes to an output that can't keep two writers apart: a warning, not a lock.

Owns: `_magpie/lease.json`, for a store without exclusive creation, where the user has promised one run at a
time. What always holds: whatever is found there or goes wrong there becomes a text to warn with; nothing is
raised and no work stops. Two runs at once are both told, each when it next renews. The clocks of two machines
are compared: when one is wrong there is a warning more, or one less at the start, and nothing else.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from magpie_ray.dataset import layout
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.errors import CorruptBuildError, StorageError
from magpie_ray.storage.storage import ObjectNotFoundError, Storage

LEASE_KEY = "_magpie/lease.json"
RENEW_SECONDS = 60.0
# A run that renews late, because the store is slow, is not taken for a dead one.
FRESH_SECONDS = 5 * RENEW_SECONDS
# The job's loop waits for it.
_RETRY_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseRecord:
    """What lease.json holds. renewed: UTC, ISO 8601; the token is the run's own."""

    token: str
    host: str
    run: int
    renewed: str

    @property
    def age_seconds(self) -> float:
        """Since the last renewal; negative where the other's clock is ahead."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.renewed)).total_seconds()


class Lease:
    """One run's claim: `take` it, `renew` it every RENEW_SECONDS, `release` it. The first two may warn."""

    def __init__(self, storage: Storage, run: RunRecord) -> None:
        self._storage = storage.retrying_for(_RETRY_SECONDS)
        self._run = run

    def take(self) -> str | None:
        """Writes the lease; a warning when another run is at work, or was until just now."""
        return self._claim(seconds=FRESH_SECONDS)

    def renew(self) -> str | None:
        """Writes the lease again; a warning when another run has written its own since."""
        return self._claim(seconds=float("inf"))

    def release(self) -> None:
        """Removes the lease if it is still ours."""
        with suppress(StorageError, CorruptBuildError):  # one that stays costs the next run a warning
            found = self._read()
            if found and found.token == self._run.token:
                self._storage.delete(LEASE_KEY)

    def _claim(self, *, seconds: float) -> str | None:
        """Writes the lease; a warning when somebody else's was renewed less than `seconds` ago."""
        run = self._run
        ours = LeaseRecord(token=run.token, host=run.host, run=run.number, renewed=layout.now())
        try:
            warning = self._warning(seconds)
            self._storage.replace(LEASE_KEY, layout.to_json(asdict(ours)))
        except StorageError as exc:
            return f"whether another run is at work can't be told: {exc}"
        return warning

    def _warning(self, seconds: float) -> str | None:
        try:
            found = self._read()
        except CorruptBuildError as exc:
            return f"whether another run is at work can't be told: {exc}"
        if found is None or found.token == self._run.token or found.age_seconds >= seconds:
            return None
        return (
            f"run {found.run} on {found.host!r} renewed {self._storage.display(LEASE_KEY)} at "
            f"{found.renewed}. If it is still at work, end one of the two: this store can't keep two runs "
            "apart, and output.single_writer: true promises that there is only one"
        )

    def _read(self) -> LeaseRecord | None:
        """The lease that is there. CorruptBuildError when it is not one."""
        try:
            raw = self._storage.read(LEASE_KEY)
        except ObjectNotFoundError:
            return None
        fields = layout.parse_json(raw, LEASE_KEY)
        try:
            found = LeaseRecord(**fields)
            _ = found.age_seconds  # a time that can be compared
        except (TypeError, ValueError) as exc:
            raise CorruptBuildError(f"{self._storage.display(LEASE_KEY)} is not a lease: {exc}") from exc
        return found
