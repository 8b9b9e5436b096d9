"""The job on real vLLM against the same rows without the job: the bundled model on this machine's CPUs.

Several systems generate messages of the same drawn lengths (drawn_engine.py), one after the other on one
engine in one process: a bare loop in which every conversation advances by itself; the worker's loop; and
phases that the engine gets at once and finishes before the next, as with `LLM.generate`. Last comes the whole
job in processes of its own: the driver, an actor under Ray, acceptance, and an S3 server.
"""

import json
import os
import tempfile
from collections import defaultdict
from itertools import islice
from pathlib import Path

import ray

from jobs.benchmarks.drawn_engine import (
    MAX_TOKENS,
    SCALE,
    DrawnEngine,
    DrawnEngineFactory,
    Measured,
    drawn_length,
)
from jobs.benchmarks.result import Cell, Claim, Result, Table
from jobs.benchmarks.s3_server import running_s3_server
from magpie_ray import draws
from magpie_ray.config.loading import load_config
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.run import BuildResult
from magpie_ray.driver.run_build import generate
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition, Role
from magpie_ray.worker.parts import make_recipe
from magpie_ray.worker.spec import WorkerSpec
from magpie_ray.worker.worker import ShardWorker

SLOTS = 32
# Forty rows a slot, so that the tail counts for little; fewer rows when each takes twice as long.
ROWS = {1: 40 * SLOTS, 2: 24 * SLOTS}
FULL_PATH_ROWS = 20 * SLOTS
_WARM_UP_ROWS = 2 * SLOTS
# The batch of a generator that waits for each phase. It needs fewer rows, because only steps a row count.
_BATCH, _BATCHED_ROWS = 2 * SLOTS, 8 * SLOTS
_ROWS_PER_PARTITION = 160


def run() -> Result:
    """Under four minutes on two cores."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # As Ray sets it for an actor of one CPU. By default torch takes all cores, and then any other process on
    # one of them makes each of torch's parallel loops wait.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tables: list[Table] = []
    claims: list[Claim] = []
    engine: DrawnEngine | None = None
    for turns, rows in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            spec = make_spec(folder, rows=rows, turns=turns)
            if engine is None:
                engine = DrawnEngineFactory()(spec)
                bare_loop(engine, spec, rows=_WARM_UP_ROWS)
            bare = bare_loop(engine, spec, rows=rows)
            ours = worker_loop(engine, spec, rows=rows)
            found = {"bare loop": (rows, bare), "worker's loop": (rows, ours)}
            mixed = bare_loop(engine, spec, rows=rows, live=3 * SLOTS)
            found |= {
                "bare loop, 3 rows a slot": (rows, mixed),
                "phases of all rows": (rows, lockstep(engine, spec, rows=rows, batch=rows)),
                f"phases of {_BATCH} rows": (
                    _BATCHED_ROWS,
                    lockstep(engine, spec, rows=_BATCHED_ROWS, batch=_BATCH),
                ),
            }
        if turns == 1:
            measured, job = full_path(rows=FULL_PATH_ROWS)
            found["whole job, Ray and S3"] = (FULL_PATH_ROWS, measured)
        title = f"{turns} turn{'s' * (turns > 1)}, {SLOTS} slots"
        tables.append(
            Table(title=f"steps, {title}", rows=[_steps(name, *each) for name, each in found.items()])
        )
        tables.append(
            Table(title=f"time, {title}", rows=[_time(name, *each) for name, each in found.items()])
        )
        claims += _claims(turns, bare, ours, mixed)
    return Result(name="engine", tables=tables, claims=claims, notes=_notes(measured, job))


def make_config(output: str, *, rows: int, turns: int, slots: int = SLOTS, **output_keys: object) -> Config:
    """A build whose requests carry seeds, which decide their lengths."""
    keys = {
        "num_rows": rows,
        "n_turns": turns,
        "sampling.reproducible": True,
        "sampling.user.max_tokens": MAX_TOKENS["user"],
        "sampling.assistant.max_tokens": MAX_TOKENS["assistant"],
        # Beyond its own end, which has no part in the drawn length, a message repeats itself.
        "acceptance.rules.repetition": False,
        "engine.device": "cpu",
        "engine.max_num_seqs": slots,
        "cluster.num_actors": 1,
        "output.path": output,
        "output.rows_per_partition": min(_ROWS_PER_PARTITION, rows),
    } | {f"output.{name}": value for name, value in output_keys.items()}
    return load_config(None, [f"{key}={json.dumps(value)}" for key, value in keys.items()])


def make_spec(output: str, *, rows: int, turns: int, slots: int = SLOTS) -> WorkerSpec:
    """The spec of a worker of such a build."""
    config = make_config(output, rows=rows, turns=turns, slots=slots)
    build_spec = resolve_build(config)
    return WorkerSpec(
        build_spec=build_spec,
        storage=Storage(config.output.path),
        fingerprint="0" * 64,
        run=1,
        device="cpu",
    )


def worker_loop(engine: DrawnEngine, spec: WorkerSpec, *, rows: int) -> Measured:
    """ShardWorker without Ray: cohorts, acceptance, Parquet files on a local disk."""
    engine.begin(spec)
    worker = ShardWorker(spec, lambda _: engine)
    for start in range(0, rows, _ROWS_PER_PARTITION):
        worker.give(Partition(start=start, stop=min(rows, start + _ROWS_PER_PARTITION)))
    worker.finish()
    for _ in worker.run():
        pass
    return engine.end()


def bare_loop(engine: DrawnEngine, spec: WorkerSpec, *, rows: int, live: int | None = None) -> Measured:
    """Only the engine's two calls: every conversation goes on as soon as its message is there.

    live: conversations under way at once; None for all.
    """
    engine.begin(spec)
    asker, fresh = _Asker(engine, spec), iter(range(rows))
    for row in islice(fresh, live):
        asker.ask(row)
    while asker.outstanding:
        for row in asker.step():
            if len(asker.messages[row]) < spec.build_spec.config.messages_per_row:
                asker.ask(row)
            elif (following := next(fresh, None)) is not None:
                asker.ask(following)
    return engine.end()


def lockstep(engine: DrawnEngine, spec: WorkerSpec, *, rows: int, batch: int) -> Measured:
    """Batch after batch as with `LLM.generate`: all first messages, then all answers, and so on."""
    engine.begin(spec)
    asker = _Asker(engine, spec)
    for start in range(0, rows, batch):
        for _ in range(spec.build_spec.config.messages_per_row):
            for row in range(start, min(rows, start + batch)):
                asker.ask(row)
            while asker.outstanding:
                asker.step()
    return engine.end()


class _Asker:
    """Prompts for LLMEngine.add_request, and messages from LLMEngine.step, by row."""

    def __init__(self, engine: DrawnEngine, spec: WorkerSpec) -> None:
        self._engine, self._config, self._format = engine, spec.build_spec.config, spec.build_spec.form
        [self._sampling] = make_recipe(spec).samplings
        self._prefix = self._format.prefix(
            spec.build_spec.prompts[0].text if spec.build_spec.prompts else None
        )
        self.outstanding = 0
        self.messages: dict[int, list[list[int]]] = defaultdict(list)

    def ask(self, row: int) -> None:
        """Ask for the row's next message."""
        messages = self.messages[row]
        role: Role = "assistant" if len(messages) % 2 else "user"
        seed = draws.request_seed(row, seed=self._config.seed_number, attempt=1, message=len(messages))
        self._engine.timed.add_request(
            str(row),
            {"type": "token", "prompt_token_ids": self._format.prompt(self._prefix, messages)},
            self._engine.params(self._sampling.of(role), drawn_length(seed, role)),
        )
        self.outstanding += 1

    def step(self) -> list[int]:
        """One step; the rows whose message has ended."""
        ended = [output for output in self._engine.timed.step() if output.finished]
        for output in ended:
            self.messages[int(output.request_id)].append(list(output.outputs[0].token_ids))
        self.outstanding -= len(ended)
        return [int(output.request_id) for output in ended]


def full_path(*, rows: int) -> tuple[Measured, BuildResult]:
    """The whole job: `magpie_ray.generate` on a Ray cluster of its own, writing to an S3 server."""
    with tempfile.TemporaryDirectory() as folder, running_s3_server() as s3:
        report = Path(folder) / "measured.json"
        config = make_config(
            f"s3://{s3.bucket}/benchmark", rows=rows, turns=1, storage_options=s3.storage_options
        )
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="WARNING")
        try:
            result = generate(config, engine_factory=DrawnEngineFactory(str(report)))
        finally:
            ray.shutdown()
        return Measured(**json.loads(report.read_text())), result


def _steps(system: str, rows: int, m: Measured) -> dict[str, Cell]:
    slots = m.running + m.idle + m.tail
    return {
        "system": system,
        "rows": rows,
        "engine_steps": m.steps,
        "of_full_batches": -(-m.tokens // SLOTS),
        "occupancy_%": 100 * m.running / slots,
        "idle_%": 100 * m.idle / slots,
        "idle_in_the_tail_%": 100 * m.tail / slots,
        "later_prompts_cached_%": 100 * m.later_cached_tokens / m.later_tokens,
        "tokens_prefilled_twice": m.later_known_tokens - m.later_cached_tokens + m.recomputed_tokens,
        "preemptions": m.preemptions,
    }


def _time(system: str, rows: int, m: Measured) -> dict[str, Cell]:
    return {
        "system": system,
        "rows_per_s": rows / m.seconds,
        "tokens_per_s": m.tokens / m.seconds,
        "seconds": m.seconds,
        "in_step_s": m.step_seconds,
        "in_add_request_s": m.add_seconds,
        "elsewhere_s": m.seconds - m.step_seconds - m.add_seconds,
        "outside_step_%": 100 * m.outside,
        "ms_a_step": 1000 * m.step_seconds / m.steps,
    }


def _claims(turns: int, bare: Measured, ours: Measured, mixed: Measured) -> list[Claim]:
    bubbles, tail = ours.idle / SLOTS, (ours.tail - bare.tail) / SLOTS
    return [
        Claim(
            what=f"engine steps of the worker's loop over the bare loop's, n_turns {turns}",
            value=ours.steps / bare.steps,
            must_be="at most",
            bound=1.01,
            why=f"{ours.steps - bare.steps} of {ours.steps:,} steps: {bubbles:.1f} before the tail, and "
            f"{tail:+.1f} in it, where nothing is left to run beside the last rows"
            f"{' while they wait for their cohorts' * (turns > 1)}; a bare loop of {3 * SLOTS} rows at a "
            f"time takes {mixed.steps:,}",
        ),
        Claim(
            what=f"part of the worker's time outside step(), n_turns {turns}",
            value=ours.outside,
            must_be="at most",
            bound=0.05,
        ),
    ]


def _notes(measured: Measured, job: BuildResult) -> list[str]:
    return [
        f"lengths: magpie-lengths at 1/{SCALE} of their size, the same for the same message in every system; "
        "measured from the first request to the end of the last step",
        "outside step() is all that is not LLMEngine.step, LLMEngine.add_request included; of the stepping "
        f"thread's CPU seconds it is {measured.cpu_outside:.1%} in the whole job",
        "a step with both user messages (sampled) and answers (greedy) runs both of vLLM's samplers, a large "
        "part of so small a model's step: the bare loop has few such steps if all rows are under way at once",
        f"the whole job: {job.seconds:.1f} s from its engine's start to its last commit, start included; its "
        "driver, Ray and the S3 server share the two cores with the engine",
        "prefilled twice: what a message leaves of a block of 32 tokens is computed again; with one turn no "
        "prompt fills a block",
        "seconds are noisy on two shared cores, steps are not",
    ]
