"""docs/data.md tells the truth: its code reads a build."""

import re
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/data.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("code", CODE, ids=lambda code: code.split("\n")[0])
def test_its_code_reads_a_build(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_build(Storage(str(tmp_path / "out")))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found: dict[str, Any] = {}
    exec(code.replace("OUTPUT", str(tmp_path / "out")), found)
    assert len(found["rows"]) == 10
