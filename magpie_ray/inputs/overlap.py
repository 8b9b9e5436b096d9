"""Whether a place that rows are read from and the output of a job overlap."""

import os
import re

from fsspec.utils import glob_translate

from magpie_ray.types import Partition


def would_read(path: str, output: str) -> bool:
    """Whether files of the output would be among those that are read at the path."""
    (scheme, place), (other, rows) = _place(path), _place(f"{output}/{Partition(start=0, stop=1).key}")
    if scheme != other:
        return False
    if any(character in place for character in "*?["):
        return re.match(glob_translate(place), rows) is not None
    folder = rows.rpartition("/")[0]
    return place == folder or rows.startswith(f"{place}/") or place.startswith(f"{folder}/")


def _place(url: str) -> tuple[str, str]:
    """The store of a path or URL, and the path on it."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme in ("file", "local"):
        return "file", os.path.realpath(os.path.expanduser(rest if separator else url))
    return {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}.get(scheme, scheme), rest.strip("/")
