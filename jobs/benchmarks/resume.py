"""Resuming a build of many partitions, stage by stage, in a process of its own.

The stages are those of `generate` between its start and its first actor, without a cluster: read the build,
derive its chat format, list what is committed, plan the rest, give every worker its first partitions.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from magpie_ray.config.loading import load_config
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.counters import Tally
from magpie_ray.dataset import build_record, manifest
from magpie_ray.dataset.columns import to_table
from magpie_ray.dataset.layout import MANIFEST_KEY
from magpie_ray.dataset.parquet import to_parquet
from magpie_ray.preflight.existing import read_existing
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.preflight.target import check_existing
from magpie_ray.storage.storage import Storage, StoredObject
from magpie_ray.types import Message, Partition, PartitionRecord, Row

GRID = 100
_WINDOW = 768
_WITHOUT_TORCH = "--without-torch"


class CountingStorage(Storage):
    """A storage that counts its calls by kind."""

    calls: Counter[str]

    def list_objects(self, prefix: str, beginning: str = "") -> list[StoredObject]:
        self.calls["list"] += 1
        return super().list_objects(prefix, beginning)

    def read(self, key: str) -> bytes:
        self.calls["read"] += 1
        return super().read(key)

    def read_tail(self, key: str, nbytes: int, *, size: int | None = None) -> bytes:
        self.calls["read_tail"] += 1
        return super().read_tail(key, nbytes, size=size)

    def size(self, key: str) -> int:
        self.calls["size"] += 1
        return super().size(key)


def config_of(output: str, num_rows: int) -> Config:
    """A one-turn build of that many rows in cells of GRID."""
    return load_config(
        None, [f"num_rows={num_rows}", f"output.path={output}", f"output.rows_per_partition={GRID}"]
    )


def make_build(output: str, *, known: int, newer: int) -> None:
    """A build with `known` partitions in its manifest and `newer` real files that came after the manifest.

    Files of the manifest are never opened: here they hold one byte.
    """
    config = config_of(output, GRID * (known + newer))
    storage = Storage(output)
    record = build_record.open_build(storage, resolve_build(config).record(GRID))
    fingerprint = record.fingerprint
    told = [
        PartitionRecord(
            start=GRID * n,
            stop=GRID * n + GRID,
            fingerprint=fingerprint,
            run=1,
            size=1,
            rejected={"empty": n % 5 + 1, "role_marker": n % 3 + 1},
            user_tokens=30 * GRID + n % 100,
            assistant_tokens=396 * GRID + n % 1000,
        )
        for n in range(known)
    ]
    manifest.write_manifest(storage, record, told, num_rows=config.num_rows)
    local = "://" not in output
    if local:
        (Path(output) / "data").mkdir(exist_ok=True)
    for each in told:
        if local:  # a hundred thousand syncs would take minutes
            (Path(output) / each.partition.key).write_bytes(b"x")
        else:
            storage.replace(each.partition.key, b"x")
    for n in range(known, known + newer):
        data, written = to_parquet(
            to_table([_row(row_id) for row_id in range(GRID * n, GRID * n + GRID)], config),
            compression=config.output.compression,
            fingerprint=fingerprint,
            run=1,
            tally=Tally(rows=GRID, user_tokens=30 * GRID, assistant_tokens=396 * GRID),
        )
        storage.create(written.partition.key, data)


def _row(row_id: int) -> Row:
    messages = (
        Message(
            role="user", text=f"Why {row_id}?", finish_reason="stop", prompt_tokens=9, completion_tokens=30
        ),
        Message(role="assistant", text="So.", finish_reason="stop", prompt_tokens=40, completion_tokens=396),
    )
    return Row(row_id=row_id, messages=messages, system_prompt=None, attempt=1)


def resume(output: str, *, num_rows: int, num_workers: int) -> dict[str, Any]:
    """Seconds of each stage, peak MB at its end, the storage's calls, and the outcome."""
    stages = list[dict[str, Any]]()

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        began, cpu = time.perf_counter(), time.process_time()
        yield
        stages.append(
            {
                "stage": name,
                "seconds": time.perf_counter() - began,
                "cpu_seconds": time.process_time() - cpu,
                "peak_mb": _peak_mb(),
            }
        )

    config = config_of(output, num_rows)
    storage = CountingStorage(output)
    storage.calls = Counter()
    with stage("what the build is, its chat format (imports transformers)"):
        existing = read_existing(storage)
        build_spec = resolve_build(config, existing)
    opening = dict(storage.calls)
    storage.calls.clear()
    with stage("what is committed"):
        if existing is None:
            existing = build_record.open_build(storage, build_spec.record(GRID))
        committed = check_existing(build_spec, existing, storage)
    calls = dict(storage.calls)
    with stage("what is pending, in shards"):
        pending = committed.pending
        dispatcher = Dispatcher(pending, num_slots=num_workers, grid=GRID, max_failures_per_partition=3)
    with stage("ledger"):
        ledger = Ledger(committed.records)
    with stage("first partitions to every worker"):
        given = [
            dispatcher.progress(slot, started=0, finished=0, live_window=_WINDOW, now=0.0)
            for slot in range(num_workers)
        ]
    return {
        "stages": stages,
        "opening_calls": opening,
        "calls": calls,
        "committed": len(committed.records),
        "committed_rows": ledger.rows,
        "pending": len(pending),
        "given": Counter(len(partitions) for partitions in given),
        "first_given": given[0][0] == Partition(start=pending[0].start, stop=pending[0].stop),
        "manifest_bytes": storage_size(storage),
    }


def storage_size(storage: Storage) -> int:
    """Bytes of the manifest, 0 where there is none."""
    return len(storage.read(MANIFEST_KEY)) if storage.exists(MANIFEST_KEY) else 0


def resume_in_own_process(
    output: str, *, num_rows: int, num_workers: int, with_torch: bool
) -> dict[str, Any]:
    """As `resume`; `wall_seconds` include the start of the process and its imports.

    with_torch: if torch is installed, transformers imports it with every tokenizer. A plain install of
    magpie-ray, enough for a driver, has no torch.
    """
    command = [sys.executable, "-m", "jobs.benchmarks.resume", output, str(num_rows), str(num_workers)]
    command += [] if with_torch else [_WITHOUT_TORCH]
    began = time.perf_counter()
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["wall_seconds"] = time.perf_counter() - began
    return found


def _peak_mb() -> float:
    """The peak memory of this process alone; ru_maxrss would include its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


if __name__ == "__main__":
    if _WITHOUT_TORCH in sys.argv:
        sys.modules["torch"] = None  # type: ignore[assignment]  # an import of torch now fails

    import magpie_ray.driver.run_build  # noqa: F401  what the driver's process holds, Ray included

    print(json.dumps(resume(sys.argv[1], num_rows=int(sys.argv[2]), num_workers=int(sys.argv[3]))))
