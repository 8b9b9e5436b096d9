"""What is imported when: a mistake in a config is told in milliseconds, and a plan needs no engine."""

import subprocess
import sys

import pytest

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

from tests.builds import complete_build
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
