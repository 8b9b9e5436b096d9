"""What `ray job submit --working-dir .` takes along, by Ray's own packaging."""

import logging
import re
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray.runtime_env import RuntimeEnv

from tests.launch.files import ROOT

pytestmark = pytest.mark.slow  # Ray takes seconds to import

ENVIRONMENT = yaml.safe_load((ROOT / "jobs/runtime_env.yaml").read_text())
CONFIGS = ["demo.yaml", "personas.yaml", "personas.csv"]
LARGE = ["out/demo/data/part-000000000000.parquet", "llama/model-00001-of-00004.safetensors", "model.gguf"]
LARGE += [".venv/lib/python3/site-packages/torch/lib/libtorch.so", "elsewhere/part-000000000000.parquet"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has, in a folder where somebody has worked: results, models and an environment lie about."""
    folder = tmp_path_factory.mktemp("checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    for name in [*LARGE, ".git/objects/pack/pack-1.pack"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def packed(checkout: Path, target: Path, excludes: Sequence[str]) -> dict[str, int]:
    """The files that Ray would upload, with their compressed sizes."""
    create_package(
        str(checkout),
        target,
        include_gitignore=True,
        excludes=[*get_runtime_env_default_excludes(), *excludes],
        logger=logging.getLogger(__name__),
    )
    with zipfile.ZipFile(target) as package:
        return {info.filename: info.compress_size for info in package.infolist() if not info.is_dir()}


def test_a_job_takes_its_code_and_little_else(checkout: Path, tmp_path: Path) -> None:
    sizes = packed(checkout, tmp_path / "package.zip", ENVIRONMENT["excludes"])
    weights = "magpie_ray/tiny_chat/model.safetensors"
    # The link jobs/configs is taken along as the folder that it leads to.
    configs = {f"{folder}/{name}" for folder in ("jobs/configs", "magpie_ray/configs") for name in CONFIGS}
    assert {"jobs/generate.py", *configs, weights} <= set(sizes)
    assert not set(sizes) & set(LARGE)
    folders = {name.split("/")[0] for name in sizes}
    assert not folders & {".git", ".venv", "out", "tests", "docs"}
    del sizes[weights]
    assert sum(sizes.values()) < 3 << 20


def test_without_the_runtime_environment_it_is_small_too(checkout: Path, tmp_path: Path) -> None:
    sizes = packed(checkout, tmp_path / "package.zip", [])
    assert not set(sizes) & set(LARGE)
    assert sum(sizes.values()) < 16 << 20  # Ray takes 100


def test_every_module_that_a_job_imports_is_taken_along(checkout: Path, tmp_path: Path) -> None:
    sizes = packed(checkout, tmp_path / "package.zip", ENVIRONMENT["excludes"])
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "magpie_ray").rglob("*.py")}
    assert modules <= set(sizes)


def test_ray_takes_the_runtime_environment_and_it_holds_no_secret() -> None:
    RuntimeEnv(**ENVIRONMENT)
    assert set(ENVIRONMENT) == {"env_vars", "excludes"}
    assert not [name for name in ENVIRONMENT["env_vars"] if re.search("TOKEN$|SECRET|PASSWORD|_KEY", name)]
    assert all((ROOT / name).exists() for name in ENVIRONMENT["excludes"])
