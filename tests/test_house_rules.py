"""Rules over the whole code: what is imported when, what runs data, what tests may reach into."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "magpie_ray"
# What turns data into code.
RUNS_DATA = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "code", "runpy", "torch"}
BUILTINS_THAT_RUN_TEXT = {"eval", "exec", "compile", "__import__"}
YAML_THAT_BUILDS_OBJECTS = {
    "load",
    "load_all",
    "full_load",
    "unsafe_load",
    "Loader",
    "FullLoader",
    "UnsafeLoader",
}


def ways_to_run_data(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] in RUNS_DATA)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in RUNS_DATA:
                yield module
            case ast.ImportFrom(module="yaml", names=names):
                yield from (alias.name for alias in names if alias.name in YAML_THAT_BUILDS_OBJECTS)
            case ast.Attribute(value=ast.Name(id="yaml"), attr=attr) if attr in YAML_THAT_BUILDS_OBJECTS:
                yield f"yaml.{attr}"
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS_THAT_RUN_TEXT:
                yield name
            case ast.keyword(arg="allow_pickle" | "shell"):
                yield str(node.arg)


def test_nothing_that_is_read_can_run_code() -> None:
    found = {path.name: list(ways_to_run_data(ast.parse(path.read_text()))) for path in PACKAGE.rglob("*.py")}
    assert {name: ways for name, ways in found.items() if ways} == {}
    for code in (
        "import pickle",
        "import torch",
        "from torch import load",
        "yaml.load(x)",
        "eval(x)",
        "run(x, shell=True)",
    ):
        assert list(ways_to_run_data(ast.parse(code))), code


_IN_ITS_OWN_PROCESS = """
import sys

def there():
    heavy = "ray vllm torch transformers pyarrow fsspec s3fs botocore huggingface_hub".split()
    return {name for name in heavy if sys.modules.get(name)}

def command(*arguments):
    from magpie_ray.cli import main
    sys.argv = ["magpie-ray", *arguments]
    try:
        main()
    except SystemExit as exc:
        assert not exc.code, exc.code

"""


def run(code: str) -> None:
    """Python code in a process of its own, which has `there()` and `command(...)`."""
    command = [sys.executable, "-c", _IN_ITS_OWN_PROCESS + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_each_step_imports_only_what_it_needs() -> None:
    run("""
import magpie_ray
assert magpie_ray.load_config(None, ["num_rows=1"]).num_rows == 1
assert there() == set(), there()

command("--help")
command("generate", "--help")
assert not there() & {"ray", "vllm", "torch", "transformers", "huggingface_hub"}, there()

from magpie_ray.storage import Storage
Storage("s3://bucket/x")
Storage("out")
assert not there() & {"ray", "s3fs", "botocore"}, there()

from tests.support.builds import complete_build
complete_build(Storage("memory://imports"))
for name in ("status", "verify", "show"):
    command(name, "memory://imports")
assert not there() & {"ray", "vllm", "torch", "transformers", "s3fs"}, there()
""")


@pytest.mark.slow
def test_a_plan_needs_neither_ray_nor_vllm() -> None:
    """As in a plain installation: torch, where it is there, is imported by transformers."""
    run("""
sys.modules["torch"] = None
command("plan", "jobs/configs/demo.yaml", "output.path=memory://nothing-here")
assert there() >= {"transformers"}
assert not there() & {"ray", "vllm"}, there()
""")


def test_every_package_says_what_it_is_and_holds_no_other_code() -> None:
    faces = sorted(PACKAGE.rglob("__init__.py"))
    assert len(faces) > 15
    for face in faces:
        if face.parent == PACKAGE:
            continue  # the public face, which loads Ray only for those who run a job
        tree = ast.parse(face.read_text())
        assert len(ast.get_docstring(tree) or "") > 15, face
        kinds = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign)
        assert all(isinstance(node, kinds) for node in tree.body), face
        assert {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        } <= {"__all__"}, face


def private_or_patched(tree: ast.AST) -> Iterator[str]:
    """Private names of other objects, private imports of the product, and its constants that are patched."""
    named_tuple = {"_replace", "_asdict", "_fields"}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=attr) if re.match("_[^_]", attr) and attr not in named_tuple:
                yield ast.unparse(node)
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("magpie_ray"):
                yield from (alias.name for alias in names if alias.name.startswith("_"))
            case ast.Call(
                func=ast.Attribute(attr="setattr"), args=[target, ast.Constant(value=str(name)), _]
            ):
                if re.fullmatch("_?[A-Z][A-Z0-9_]*", name) and "constants" not in ast.unparse(target):
                    yield ast.unparse(node)


def test_no_test_and_no_job_reads_what_is_private_or_patches_a_constant() -> None:
    paths = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]
    found = {str(p.relative_to(ROOT)): list(private_or_patched(ast.parse(p.read_text()))) for p in paths}
    assert {name: uses for name, uses in found.items() if uses} == {
        "tests/storage/test_moving.py": ["super()._strip_protocol"]  # fsspec's, for another scheme
    }
    for code in ("x._y", "from magpie_ray.a import _b", "monkeypatch.setattr(a, '_SECONDS', 1)"):
        assert list(private_or_patched(ast.parse(code))), code
