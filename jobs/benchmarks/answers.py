"""Several answers to each row: the worker against a bare loop that asks for all of them at once.

On real vLLM the bundled model gives answers of drawn lengths (drawn_engine.py) to the rows of a source, to
long prompts and to short ones. In virtual time the worker's rounds do the same for an 8B model
(simulated_answers.py).
"""

import json
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.benchmarks.cards import H200, L4, Card
from jobs.benchmarks.drawn_engine import SCALE, DrawnEngine, DrawnEngineFactory, Measured, drawn_length
from jobs.benchmarks.engine import worker_loop
from jobs.benchmarks.result import Cell, Claim, Result, Table
from jobs.benchmarks.simulated_answers import (
    DOCUMENTS,
    INSTRUCTIONS,
    AnswersRun,
    Rows,
    draw_rows,
    our_rounds,
)
from jobs.benchmarks.simulated_answers import bare_loop as simulated_bare_loop
from jobs.tiny_chat import corpus
from magpie_ray import draws
from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import parse_as
from magpie_ray.model.tokenizer import load_tokenizer
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.storage.storage import Storage
from magpie_ray.worker.parts import make_recipe
from magpie_ray.worker.spec import WorkerSpec

SLOTS, EACH = 32, 5
# Forty answers a slot, as many as in the benchmark of whole conversations.
ROWS = 40 * SLOTS // EACH
_WARM_UP_ROWS = 2 * SLOTS // EACH
_SEED = 7
# Sentences of a prompt, at least and at most.
PROMPTS: Mapping[str, tuple[int, int]] = {"long": (40, 100), "short": (1, 4)}
_SIMULATED_ANSWERS_PER_SLOT = 40
# Prefixes are cached in whole blocks of 16 tokens on GPUs, and of 32 on a CPU.
_CPU_BLOCK = 32
_LEAST_FOUND = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """What a loop did to the engine. prompts: tokens of each row's prompt. each: answers to a row."""

    measured: Measured
    prompts: tuple[int, ...]
    each: int

    @property
    def repeated_tokens(self) -> int:
        """Prompt tokens that an earlier answer to the same row has been asked with."""
        return (self.each - 1) * sum(self.prompts)

    @property
    def found(self) -> float:
        """The share of them that was in the cache."""
        return self.measured.later_cached_tokens / self.repeated_tokens

    @property
    def in_whole_blocks(self) -> float:
        """The share that a cache of whole blocks can have. The last token is always read."""
        blocks = sum((length - 1) // _CPU_BLOCK for length in self.prompts)
        return blocks * _CPU_BLOCK / sum(self.prompts)


def run() -> Result:
    """About three minutes on two cores."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray sets it for an actor of one CPU
    steps: list[dict[str, Cell]] = []
    claims: list[Claim] = []
    engine: DrawnEngine | None = None
    for kind in PROMPTS:
        with tempfile.TemporaryDirectory() as folder:
            spec = make_spec(Path(folder), rows=ROWS, kind=kind)
            if engine is None:
                engine = DrawnEngineFactory()(spec)
                bare_loop(engine, spec, rows=_WARM_UP_ROWS)
            bare = bare_loop(engine, spec, rows=ROWS)
            ours = our_loop(engine, spec, rows=ROWS)
        steps += [
            _row(f"{name}, {kind} prompts", one) for name, one in (("bare loop", bare), ("worker", ours))
        ]
        claims += _claims(kind, bare, ours)
    simulated = [_simulated(card, median) for card in (H200, L4) for median in (INSTRUCTIONS, DOCUMENTS)]
    return Result(
        name="answers",
        tables=[
            Table(title=f"real vLLM, {ROWS} rows, {EACH} answers each, {SLOTS} slots", rows=steps),
            Table(
                title=f"an 8B model in virtual time, {EACH} answers each; s are simulated",
                rows=[row for rows, _ in simulated for row in rows],
            ),
        ],
        claims=[*claims, *(claim for _, more in simulated for claim in more)],
        notes=[
            f"real vLLM: answers are magpie-lengths at 1/{SCALE} of their size; blocks of {_CPU_BLOCK}",
            "repeated tokens are those of the prompts of all answers to a row but its first; what a prompt "
            "leaves of a block, and its last token, are read again: whole_blocks is the most there is",
            "virtual time: half of the answers short (about 60 tokens), half long (median 800); blocks of 16",
        ],
    )


def make_spec(folder: Path, *, rows: int, kind: str, slots: int = SLOTS, each: int = EACH) -> WorkerSpec:
    """The spec of a worker of a pass over so many rows, whose requests carry seeds, which decide lengths."""
    source = folder / "source.jsonl"
    source.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in _texts(rows, kind)))
    keys = {
        "source": {"path": str(source)},
        "n": each,
        "seed": _SEED,
        "sampling": {
            "reproducible": True,
            "assistant": {"temperature": 0.8, "max_tokens": 1024 // SCALE},
        },
        # Beyond its own end, which has no part in the drawn length, a message repeats itself.
        "acceptance": {"rules": {"repetition": False}},
        "engine": {"device": "cpu", "max_num_seqs": slots},
        "cluster": {"num_actors": 1},
        "output": {"path": str(folder / "out")},
    }
    config = parse_as(AnswerConfig, keys)
    return WorkerSpec(
        build_spec=resolve_build(config),
        storage=Storage(config.output.path),
        fingerprint="0" * 64,
        run=1,
        device="cpu",
    )


def _texts(rows: int, kind: str) -> Iterator[str]:
    draw, sentences = random.Random(0), corpus.first_instructions()
    least, most = PROMPTS[kind]
    for number in range(rows):
        # Each begins in its own way, so that rows share no block with other rows.
        yield " ".join([f"{number}.", *draw.choices(sentences, k=draw.randint(least, most))])


def _prompts(spec: WorkerSpec, rows: int) -> list[list[int]]:
    """Of the rows, by the template of the model itself."""
    assert isinstance(spec.build_spec.config, AnswerConfig)
    tokenizer = load_tokenizer(spec.build_spec.model.location).tokenizer
    texts = [
        json.loads(line)["instruction"]
        for line in Path(spec.build_spec.config.source.path).read_text().splitlines()
    ]
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in texts[:rows]
    ]


def bare_loop(engine: DrawnEngine, spec: WorkerSpec, *, rows: int) -> Answered:
    """Only the engine's two calls: all answers are asked for at once, those of a row together."""
    engine.begin(spec)
    config, prompts = spec.build_spec.config, _prompts(spec, rows)
    assert isinstance(config, AnswerConfig)
    sampling = make_recipe(spec).samplings[0].assistant
    for row, prompt in enumerate(prompts):
        for answer in range(row * config.n, (row + 1) * config.n):
            seed = draws.request_seed(answer, seed=config.seed_number, attempt=1, message=1)
            engine.timed.add_request(
                str(answer),
                {"type": "token", "prompt_token_ids": prompt},
                engine.params(sampling, drawn_length(seed, "assistant")),
            )
    while engine.timed.has_unfinished_requests():
        engine.timed.step()
    return Answered(measured=engine.end(), prompts=tuple(map(len, prompts)), each=config.n)


def our_loop(engine: DrawnEngine, spec: WorkerSpec, *, rows: int) -> Answered:
    """ShardWorker without Ray: the rows are read from the source, and written as Parquet files."""
    config, prompts = spec.build_spec.config, _prompts(spec, rows)
    assert isinstance(config, AnswerConfig)
    measured = worker_loop(engine, spec, rows=rows)
    return Answered(measured=measured, prompts=tuple(map(len, prompts)), each=config.n)


def _row(system: str, answered: Answered) -> dict[str, Cell]:
    m = answered.measured
    slots = m.running + m.idle + m.tail
    return {
        "system": system,
        "engine_steps": m.steps,
        "of_full_batches": -(-m.tokens // SLOTS),
        "occupancy_%": 100 * m.running / slots,
        "idle_%": 100 * m.idle / slots,
        "idle_in_the_tail_%": 100 * m.tail / slots,
        "repeated_tokens": answered.repeated_tokens,
        "found_%": 100 * answered.found,
        "whole_blocks_%": 100 * answered.in_whole_blocks,
        "rows_per_s": len(answered.prompts) / m.seconds,
        "outside_step_%": 100 * m.outside,
    }


def _claims(kind: str, bare: Answered, ours: Answered) -> list[Claim]:
    found = Claim(
        what=f"{EACH} answers: repeated prompt tokens found in the prefix cache, {kind} prompts",
        value=ours.found,
        must_be="at least",
        bound=_LEAST_FOUND if kind == "long" else ours.in_whole_blocks,
    )
    full = Claim(
        what=f"{EACH} answers: slots free before the tail, of all, {kind} prompts",
        value=ours.measured.idle / (ours.measured.steps * SLOTS),
        must_be="at most",
        bound=0.01,
    )
    steps = Claim(
        what=f"{EACH} answers: engine steps of the worker's loop over the bare loop's, {kind} prompts",
        value=ours.measured.steps / bare.measured.steps,
        must_be="at most",
        bound=1.01,
    )
    outside = Claim(
        what=f"{EACH} answers: part of the worker's time outside step(), {kind} prompts",
        value=ours.measured.outside,
        must_be="at most",
        bound=0.05,
    )
    return [steps, full, found, outside]


def _simulated(card: Card, median: int) -> tuple[list[dict[str, Cell]], list[Claim]]:
    rows = draw_rows(_SIMULATED_ANSWERS_PER_SLOT * card.max_num_seqs // EACH, EACH, median=median)
    bare, ours = simulated_bare_loop(card, rows), our_rounds(card, rows)
    claim = Claim(
        what=f"{card.name}, {EACH} answers, prompts of {median} tokens: simulated time over a bare loop's",
        value=ours.seconds / bare.seconds,
        must_be="at most",
        bound=1.01,
    )
    named = (("bare loop", bare), ("rounds", ours))
    return [_simulated_row(card, median, name, rows, one) for name, one in named], [claim]


def _simulated_row(card: Card, median: int, system: str, rows: Rows, run: AnswersRun) -> dict[str, Cell]:
    return {
        "card": card.name,
        "prompts": median,
        "system": system,
        "answers": len(rows.answers),
        "engine_steps": run.stats.steps,
        "s": run.seconds,
        "batch_filled": run.body_filled,
        "found": run.found,
        "whole_blocks": rows.in_whole_blocks,
        "preemptions": run.stats.preemptions,
    }
