"""What lies in data/: partitions, files that readers overlook, and strays.

Invariants: only a name makes a partition, and only partitions are checked. Other files never stop a run.
Names that begin with a dot or an underscore are hidden, because readers of a folder overlook them. Readers of
data/*.parquet (DuckDB, polars, datasets) open every name that matches.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from magpie_ray.dataset.layout import PARTITION_KEY
from magpie_ray.storage.storage import Storage
from magpie_ray.types import DATA_PREFIX, StoredObject

_SHOWN_FILES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFolder:
    """A listing of data/. partitions: files with the name of a partition, by key.

    strays: keys of other files that some reader opens; foreign: those of them that readers take for rows.
    """

    partitions: tuple[StoredObject, ...]
    strays: tuple[str, ...]

    @property
    def foreign(self) -> tuple[str, ...]:
        return tuple(key for key in self.strays if key.endswith(".parquet"))


def read_data_folder(storage: Storage) -> DataFolder:
    """List data/."""
    listed = storage.list_objects(DATA_PREFIX)
    return DataFolder(
        partitions=tuple(item for item in listed if PARTITION_KEY.fullmatch(item.key)),
        strays=tuple(item.key for item in listed if _is_stray(item.key)),
    )


def _is_stray(key: str) -> bool:
    if PARTITION_KEY.fullmatch(key):
        return False
    parts = key.removeprefix(DATA_PREFIX).split("/")
    is_hidden = any(part.startswith((".", "_")) for part in parts)
    return not is_hidden or (len(parts) == 1 and key.endswith(".parquet"))


def stray_warning(storage: Storage, keys: Iterable[str]) -> str:
    """What the log says of strays."""
    keys = list(keys)
    more = f" and {len(keys) - _SHOWN_FILES} more" if len(keys) > _SHOWN_FILES else ""
    names = ", ".join(keys[:_SHOWN_FILES])
    return (
        f"{storage.display(DATA_PREFIX)} holds files that magpie-ray did not write: {names}{more}. The build "
        "is not affected, but readers of the folder may read them or fail on them: move them away"
    )
