"""Faults of people and of other programs: files dropped into data/, the records of a build removed."""

import time
from dataclasses import dataclass

from magpie_ray.dataset.layout import BUILD_KEY, run_key
from tests.chaos.scene import Injection, Scene

# What a Mac, Windows, Hadoop and a sync tool leave; none of it has the name of a partition.
STRAYS = (
    "data/.DS_Store",
    "data/Thumbs.db",
    "data/_temporary/0/part-000000000000.parquet",
    "data/part-000000000000.parquet.tmp",
    "data/.part-000000000000.parquet.crc",
)


@dataclass(frozen=True, slots=True)
class DropStrays:
    """Files of other programs in data/."""

    name: str = "output: strays in data/"

    def inject(self, scene: Scene) -> None:
        for key in STRAYS:
            scene.output.drop(key)
        scene.injections.append(Injection(self.name, time.monotonic()))


@dataclass(frozen=True, slots=True)
class RemoveRecords:
    """The folder _magpie is removed. Recovered: the build and its run are recorded again."""

    name: str = "output: _magpie removed"

    def inject(self, scene: Scene) -> None:
        at, storage = time.monotonic(), scene.output.storage()
        first = storage.list_objects("_magpie/runs")[-1].key
        number = int(first.rsplit("/", 1)[1][:6])
        scene.output.remove_records()
        scene.driver.wait_for(
            "writing its records again",
            lambda: storage.exists(BUILD_KEY) and storage.exists(run_key(number)),
        )
        over = time.monotonic()
        scene.injections.append(Injection(self.name, at, recovered=lambda: over))
