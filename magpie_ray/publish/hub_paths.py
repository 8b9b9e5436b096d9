"""Where each file of a build lies in a repository of the Hugging Face hub.

The hub takes 10,000 entries in a folder. A small build lies there as it lies at its output, in data/. A
larger one has sub-folders, each for the same number of grid cells, such as
data/00003/part-000007500000.parquet. Invariants: a file that the repository has stays where it is, so that a
build may grow from one form into the other; the folder of a file follows from its first row alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from magpie_ray.dataset.layout import DATA_FILES
from magpie_ray.errors import PreflightError
from magpie_ray.types import DATA_PREFIX, PartitionRecord

# Files in data/ itself; the rest of the hub's 10,000 is for sub-folders.
MOST_FLAT = 9_000
MOST_ENTRIES = 10_000
# A cell has several files where a notice cut one short: up to four on average fit.
CELLS_PER_FOLDER = 2_500
DATA_FILES_IN_FOLDERS = f"{DATA_PREFIX}**/*.parquet"


def hub_paths(
    records: Sequence[PartitionRecord],
    sizes: Mapping[str, int],
    *,
    grid: int,
    most_flat: int = MOST_FLAT,
    cells_per_folder: int = CELLS_PER_FOLDER,
) -> dict[str, str]:
    """The path in the repository for the key of each file. sizes: of the repository's files, by path.

    PreflightError when a folder would have more entries than the hub takes.
    """
    paths = {}
    for record in records:
        key = record.partition.key
        folder = record.start // (grid * cells_per_folder)
        inside = f"{DATA_PREFIX}{folder:05d}/{key.removeprefix(DATA_PREFIX)}"
        there = next((path for path in (key, inside) if sizes.get(path) == record.size), None)
        paths[key] = there or (key if len(records) <= most_flat else inside)
    entries = Counter(path.rpartition("/")[0] for path in paths.values())
    entries["data"] += len(entries) - ("data" in entries)
    folder_name, most = entries.most_common(1)[0]
    if most > MOST_ENTRIES:
        raise PreflightError(
            f"{len(records):,} files are too many for the hub: {most:,} of them would be in {folder_name}/, "
            f"and it takes {MOST_ENTRIES:,} in a folder. Write the rows to fewer files and push these, for "
            "example with the library datasets; a build with a larger output.rows_per_partition has fewer"
        )
    return paths


def data_files(paths: Mapping[str, str]) -> str:
    """The pattern by which readers find the files."""
    return DATA_FILES if all(key == path for key, path in paths.items()) else DATA_FILES_IN_FOLDERS
