"""requirements-cpu.txt and requirements-dev.txt from uv's lists of the extras without and with `dev`.

    python .ci/lists.py CPU.txt DEV.txt

uv repeats in each line what all lines have in common: Linux, two kinds of machine, four versions of Python.
Here a line has a marker only where some of these differ.
"""

import itertools
import re
import sys
from collections.abc import Collection
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement

_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_MACHINES = ("x86_64", "aarch64")
_LINUX = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
# Their CUDA builds break a CPU install; a CPU has no use for triton.
_LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton"}

_CPU_HEAD = """\
# What builds on a CPU and curation need, complete and pinned, for Linux (x86-64, arm64), Python 3.11 to 3.14.
# Made by `make lock`; install with --no-deps (see Makefile). torchvision, torchaudio and torchcodec are left
# out because their CUDA builds break a CPU install, triton because a CPU has no use for its gigabyte.
"""
_DEV_HEAD = """\
# What development and tests need beside requirements-cpu.txt, complete and pinned.
# Made by `make lock`; install with --no-deps (see Makefile).
"""


def wanted_by(marker: Marker | None) -> frozenset[tuple[str, str]]:
    """The versions of Python and machines that a marker lets through."""
    return frozenset(
        (python, machine)
        for python, machine in itertools.product(_PYTHONS, _MACHINES)
        if marker is None
        or marker.evaluate(
            _LINUX
            | {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine}
        )
    )


def short_marker(wanted: Collection[tuple[str, str]]) -> str:
    """The shortest marker for one machine, for all Pythons from one on, or for all up to one."""
    texts = [""]
    texts += [f" ; platform_machine == '{machine}'" for machine in _MACHINES]
    texts += [f" ; python_version {sign} '{python}'" for python in _PYTHONS[1:] for sign in ("<", ">=")]
    for text in texts:
        if wanted_by(Marker(text.removeprefix(" ; ")) if text else None) == wanted:
            return text
    raise ValueError(f"no short marker for {sorted(wanted)}")


def read(path: str) -> dict[str, str]:
    """The lines of a list by package, each with a short marker."""
    lines = {}
    for line in Path(path).read_text().splitlines():
        if re.match(r"\w", line):
            requirement = Requirement(line)
            if requirement.name not in _LEFT_OUT:
                pin = f"{requirement.name}{requirement.specifier}"
                lines[requirement.name] = pin + short_marker(wanted_by(requirement.marker))
    return lines


def main(cpu_path: str, dev_path: str) -> None:
    """Both lists beside the Makefile; no line is in both."""
    cpu, dev = read(cpu_path), read(dev_path)
    Path("requirements-cpu.txt").write_text(_CPU_HEAD + "".join(f"{cpu[name]}\n" for name in sorted(cpu)))
    rest = sorted(set(dev) - set(cpu))
    Path("requirements-dev.txt").write_text(_DEV_HEAD + "".join(f"{dev[name]}\n" for name in rest))


if __name__ == "__main__":
    main(*sys.argv[1:])
