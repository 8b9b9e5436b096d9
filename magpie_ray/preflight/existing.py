"""What an output holds before a command writes to it: a build, nothing, or what can't be understood.

Invariants: looking writes nothing; what can't be understood is refused, as nothing has started yet.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from magpie_ray.dataset import build_record, layout
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.data_folder import read_data_folder
from magpie_ray.errors import CorruptBuildError, PreflightError, StorageError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import DATA_PREFIX


def read_existing(storage: Storage) -> BuildRecord | None:
    """The build at the output; None where there is none yet. PreflightError when it can't be understood."""
    with refusing():
        record = build_record.read_build(storage)
        if record is None:
            folder = read_data_folder(storage)
            if folder.partitions or folder.foreign:
                raise PreflightError(
                    f"{storage.display(DATA_PREFIX)} holds files, but there is no {layout.BUILD_KEY} that "
                    "says which build they belong to: bring it back, or choose another output"
                )
        return record


@contextmanager
def refusing() -> Iterator[None]:
    """Before anything has started, a broken output is a refusal and not a failure of the work."""
    try:
        yield
    except (CorruptBuildError, StorageError) as exc:
        raise PreflightError(str(exc)) from exc
