"""tiny_chat trained on with the chat formats of other families, on real vLLM: as good as with its own.

make slow

Each is trained once: pytest's cache keeps it until what it is made from changes.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.tiny_chat import corpus
from jobs.tiny_chat.families import FAMILIES
from tests.end_to_end.tiny_chat_quality import BUNDLED, FLOORS, as_table, quality_of

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.training,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore"),
]

ROOT = Path(__file__).resolve().parents[2]
MADE_FROM = (ROOT / "jobs" / "train_tiny_chat.py", ROOT / "jobs" / "tiny_chat", Path(corpus.__file__).parent)


def digest() -> str:
    """Of all that decides what a training makes."""
    found = hashlib.sha256()
    for place in MADE_FROM:
        for path in sorted([place] if place.is_file() else place.rglob("*")):
            if path.suffix in {".py", ".jinja", ".json", ".safetensors"}:
                found.update(path.read_bytes())
    return found.hexdigest()[:16]


@pytest.fixture
def folder(family: str, pytestconfig: pytest.Config) -> Path:
    """Where tiny_chat lies, trained on with the family's chat format."""
    trained = pytestconfig.cache.mkdir("tiny_chat") / f"{family}-{digest()}"
    if not trained.exists():
        unfinished = trained.with_name(f"{trained.name}.{os.getpid()}")
        command = [sys.executable, "jobs/train_tiny_chat.py", "--template", family, "--output", unfinished]
        subprocess.run(command, cwd=ROOT, check=True)
        unfinished.rename(trained)
    return trained


@pytest.mark.parametrize("family", ["chatml", "gemma", "deepseek"])
def test_it_is_as_good_as_with_its_own_format(family: str, folder: Path) -> None:
    assert family in FAMILIES
    quality = quality_of(str(folder), thinking=False)
    print("\n" + as_table({"its own": quality_of(BUNDLED), family: quality}))
    assert sorted(quality) == sorted(figure for figure in FLOORS if "reasoning" not in figure)
    assert {figure: str(share) for figure, share in quality.items() if share.value < FLOORS[figure]} == {}
