"""A build with 1,000,000 inputs beside the same build with one system prompt: memory, steps, time of the job.

The table has prompts of about 200 tokens, 1 GB of text. One process is the driver: it reads, checks and
copies the inputs, and makes the spec of its workers. Others are workers, each with that spec and a simulated
engine whose steps take 20 ms and no processor: what is left is the job's own time. Messages have the same
drawn lengths everywhere.
"""

import json
import os
import pickle
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from jobs.benchmarks.result import Claim, Result, Table

INPUTS = 1_000_000
ROWS = 20_000
_ROWS_PER_PARTITION = 2_000
_SLOTS = 256
_MEGABYTE = 1e6
# An actor of an 8B model on a recent GPU finishes about so many rows a second; a larger one fewer.
_ROWS_PER_SECOND = 30
_SYSTEMS = ("one system prompt", "inputs in order", "inputs at random", "inputs by weight")

_WORDS = [
    *("kelp", "market", "river", "violin", "budget", "harvest", "lathe", "school", "permit", "vaccine"),
    *("orchid", "bridge", "ledger", "soil", "recipe", "forest", "engine", "archive", "harbour", "lantern"),
    *("compass", "granite", "saddle", "thimble", "walnut", "canvas", "turbine", "parcel", "meadow", "copper"),
]
# An engine that answers at once would ask for rows faster than any real one.
_STEP_SECONDS = 0.02


def run() -> Result:
    """About ten minutes on two cores, most of it for the table."""
    with tempfile.TemporaryDirectory(prefix="magpie-benchmark-") as name:
        folder = Path(name)
        text = make_table(folder / "prompts.parquet", INPUTS)
        drivers = {system: _child("driver", system, folder) for system in _SYSTEMS}
        workers = {system: _child("worker", system, folder) for system in _SYSTEMS}
    none = workers[_SYSTEMS[0]]
    claims = []
    for system in _SYSTEMS[1:]:
        driver, worker = drivers[system], workers[system]
        base = drivers[_SYSTEMS[0]]
        extra = worker["loop_cpu_ms_a_row"] - none["loop_cpu_ms_a_row"]
        claims += [
            Claim(
                what=f"{system}: memory of the driver beyond that without inputs, MB",
                value=driver["peak_mb"] - base["peak_mb"],
                must_be="at most",
                bound=200,
            ),
            Claim(
                what=f"{system}: memory that a worker takes for its rows beyond that without inputs, MB",
                value=worker["rows_mb"] - none["rows_mb"],
                must_be="at most",
                bound=200,
            ),
            Claim(
                what=f"{system}: engine steps over those without inputs",
                value=worker["steps"] / none["steps"],
                must_be="at most",
                bound=1.01,
            ),
            Claim(
                what=f"{system}: more time of the loop, part of a row's at {_ROWS_PER_SECOND} rows/s",
                value=max(0.0, extra) / 1000 * _ROWS_PER_SECOND,
                must_be="at most",
                bound=0.01,
            ),
            Claim(
                what=f"{system}: bytes of a worker's spec beyond those without inputs",
                value=driver["spec_bytes"] - base["spec_bytes"],
                must_be="at most",
                bound=10_000,
            ),
        ]
    return Result(
        name="inputs",
        tables=[
            Table(title=f"driver, {INPUTS:,} inputs", rows=[{"system": s, **drivers[s]} for s in _SYSTEMS]),
            Table(title=f"worker, {ROWS:,} rows", rows=[{"system": s, **workers[s]} for s in _SYSTEMS]),
        ],
        claims=claims,
        notes=[
            f"the prompts have {text / 1e9:.2f} GB of text; input and output lie on a local disk",
            "loop_cpu: of the thread that steps the engine; process_cpu: of all threads of the worker, those "
            "that load inputs, tokenize, decide and write among them; both without the engine, which does "
            "nothing",
            "rows_mb: the most memory while rows are made, less that before the first one",
        ],
    )


def make_table(path: Path, inputs: int) -> int:
    """A Parquet file of distinct prompts, and of their weights. Returns the bytes of text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw, text = random.Random(1), 0
    schema = pa.schema([("system_prompt", pa.string()), ("topic", pa.string()), ("weight", pa.float64())])
    # Sentences are put together; drawing every word would take an hour.
    sentences = [" ".join(draw.choices(_WORDS, k=25)) for _ in range(5_000)]
    with pq.ParquetWriter(path, schema) as writer:
        for begin in range(0, inputs, 10_000):
            prompts = [
                f"You are an AI assistant, and your user is person {number}. "
                + ". ".join(draw.choices(sentences, k=6))
                for number in range(begin, min(begin + 10_000, inputs))
            ]
            text += sum(map(len, prompts))
            topics = draw.choices(_WORDS, k=len(prompts))
            weights = [draw.uniform(0.5, 2) for _ in prompts]
            writer.write_table(pa.table([prompts, topics, weights], schema=schema))
    return text


def _child(part: str, system: str, folder: Path) -> dict[str, Any]:
    """One process, so that no figure is another's memory."""
    command = [sys.executable, "-m", "jobs.benchmarks.inputs", part, system, str(folder)]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.PIPE)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _driver(system: str, folder: Path) -> dict[str, Any]:
    """Resolve the build and copy its inputs; leave the spec of a worker."""
    from magpie_ray.config.loading import load_config
    from magpie_ray.dataset import build_record
    from magpie_ray.preflight.companions import write_companions
    from magpie_ray.preflight.resolve import resolve_build
    from magpie_ray.storage.storage import Storage
    from magpie_ray.worker.spec import WorkerSpec

    output = folder / system.replace(" ", "-")
    keys: dict[str, object] = {
        "num_rows": ROWS,
        "seed": 5,
        "sampling.reproducible": True,
        "output.path": str(output),
        "output.rows_per_partition": _ROWS_PER_PARTITION,
    }
    if system == _SYSTEMS[0]:
        draw = random.Random(2)
        keys["system_prompt"] = "You are an AI assistant. " + " ".join(draw.choices(_WORDS, k=150))
    else:
        keys |= {"inputs.path": str(folder / "prompts.parquet"), "inputs.keep": ["topic"]}
        keys["inputs.pick"] = "in_order" if system == "inputs in order" else "at_random"
        keys["inputs.weight"] = "weight" if system == "inputs by weight" else None
    with _memory() as memory:
        started = time.monotonic()
        spec = resolve_build(load_config(None, [f"{key}={json.dumps(value)}" for key, value in keys.items()]))
        resolved = time.monotonic()
        storage = Storage(str(output))
        record = build_record.open_build(storage, spec.record(_ROWS_PER_PARTITION))
        write_companions(spec, storage)
        copied = time.monotonic()
    worker = pickle.dumps(
        WorkerSpec(
            build_spec=spec,
            storage=storage,
            fingerprint=record.fingerprint,
            run=1,
            device="cpu",
        )
    )
    output.with_suffix(".spec").write_bytes(worker)
    objects = storage.list_objects("_magpie/inputs")
    return {
        "peak_mb": memory["peak"] / _MEGABYTE,
        "resolve_s": resolved - started,
        "copy_s": copied - resolved,
        "copy_mb": sum(item.size for item in objects) / _MEGABYTE,
        "objects": len(objects),
        "spec_bytes": len(worker),
    }


def _worker(system: str, folder: Path) -> dict[str, Any]:
    """Make rows with an engine that answers at once."""
    from magpie_ray.types import Partition
    from magpie_ray.worker.events import Ready
    from magpie_ray.worker.worker import ShardWorker

    spec = pickle.loads((folder / system.replace(" ", "-")).with_suffix(".spec").read_bytes())
    engine = _Engine(spec)
    worker = ShardWorker(spec, lambda _: engine)
    for start in range(0, ROWS, _ROWS_PER_PARTITION):
        worker.give(Partition(start=start, stop=start + _ROWS_PER_PARTITION))
    worker.finish()
    with _memory() as memory:
        before, process, loop, wall = 0.0, 0.0, 0.0, 0.0
        for event in worker.run():
            if isinstance(event, Ready):
                before, process = psutil.Process().memory_info().rss, time.process_time()
                loop, wall = time.thread_time(), time.monotonic()
        loop_cpu, process_cpu = time.thread_time() - loop, time.process_time() - process
    return {
        "steps": engine.steps,
        "wall_s": time.monotonic() - wall,
        "loop_cpu_ms_a_row": 1000 * (loop_cpu - engine.cpu_seconds) / ROWS,
        "process_cpu_ms_a_row": 1000 * (process_cpu - engine.cpu_seconds) / ROWS,
        "rows_mb": (memory["peak"] - before) / _MEGABYTE,
        "peak_mb": memory["peak"] / _MEGABYTE,
    }


def _Engine(spec: Any) -> Any:  # noqa: N802  a class once its imports are made
    """A simulated engine whose messages have the drawn lengths of their requests' seeds."""
    from jobs.benchmarks.drawn_engine import drawn_length
    from magpie_ray.engine.protocol import Completion, EngineFigures, Request
    from magpie_ray.engine.simulated.engine import Answer, SimulatedEngine
    from magpie_ray.model.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(spec.build_spec.model.location).tokenizer
    words = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in _WORDS]

    def respond(request: Request) -> Answer:
        assert request.seed is not None
        draw = random.Random(request.seed)
        length = drawn_length(request.seed, "user" if request.sampling.settings.temperature else "assistant")
        return [token for word in draw.choices(words, k=length) for token in word][: max(4, length)], "stop"

    class Engine(SimulatedEngine):
        steps = 0
        cpu_seconds = 0.0

        def submit(self, request: Request) -> None:
            started = time.thread_time()
            super().submit(request)
            self.cpu_seconds += time.thread_time() - started

        def step(self) -> list[Completion]:
            started = time.thread_time()
            completions = super().step()
            self.cpu_seconds += time.thread_time() - started
            self.steps += 1
            time.sleep(_STEP_SECONDS)
            return completions

    figures = EngineFigures(max_num_seqs=_SLOTS, kv_cache_tokens=2_000_000, max_model_len=2048)
    return Engine(respond, figures=figures)


@contextmanager
def _memory() -> Iterator[dict[str, float]]:
    """The most memory of this process meanwhile, in bytes."""
    process, over = psutil.Process(), threading.Event()
    measured = {"peak": 0.0}

    def watch() -> None:
        while not over.wait(0.02):
            measured["peak"] = max(measured["peak"], process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield measured
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    _part, _system, _folder = sys.argv[1:]
    print(json.dumps({"driver": _driver, "worker": _worker}[_part](_system, Path(_folder))))
