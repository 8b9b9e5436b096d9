"""A build with all that a report can show: several runs, lost actors, a mix of prompts, hostile texts."""

import os
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from magpie_ray.counters import EngineStats, Tally
from magpie_ray.dataset import build_record, layout, manifest, run_records
from magpie_ray.dataset.actor_history import ActorHistoryRecord, ActorLife, FailedNode, write_actor_history
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.columns import columns_of, to_table
from magpie_ray.dataset.parquet import to_parquet
from magpie_ray.dataset.rejects import replace_sample
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Message, PartitionRecord, Rejection, Row, SystemPrompt
from tests.support.builds import config_of, row_of

# What a page must show and never do.
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</style></title></textarea><svg onload=alert(3)>",
    "<img src=https://example.invalid/x.png onerror=alert(4)>",
    "\u202egnp.exe\u202c and \u2066isolated\u2069",
    "\x1b[2J\x1b[31mred\x1b]8;;http://example.invalid\x07link",
    "nul\0 and bell\x07",
    "{{ 7 * 7 }} {% raw %} ${7*7} <!-- -->",
    "]]> &lt;b&gt; &amp; \"quoted\" 'too'",
    "javascript:alert(5)",
    "![image](https://example.invalid/x.png) [link](https://example.invalid)",
)
LANGUAGES = (
    "اكتب قصيدة قصيرة عن البحر وسماء الليل، من فضلك.",
    "כתוב לי סיפור על חתול (cat) בשם Tom.",
    "请写一首关于春天的诗。",
    "東京で一番高い建物は何ですか。",
    "เขียนจดหมายถึงเพื่อน",
    "Explain the difference between TCP and UDP.",
)
PROMPTS = (
    SystemPrompt(key="math", text="You solve problems in mathematics.", weight=0.5),
    SystemPrompt(key="<b>bold</b>", text=HOSTILE[0], weight=0.3),
    SystemPrompt(key="poems", text="You write poems.", weight=0.2),
)
STARTS = [
    "What is the capital of",
    "What are the rules of",
    "How do I cook",
    "How can we prove",
    "Write a poem about",
    "Write an essay on",
    "Explain why",
    "Give me three examples of",
    "Can you summarise",
    "Is it true that",
]
WORDS = ["rivers", "trains", "light", "chess", "tea", "maps", "bread", "clouds", "music", "gravity", "glass"]
BEGAN = 1_780_000_000


def rich_build(folder: Path, *, rows: int = 240, grid: int = 8, num_gpus: float = 1) -> Storage:
    """Three runs on up to 30 actors each, two weeks ago; one row of each eight repeats an instruction."""
    random = Random(0)
    storage = Storage(str(folder))
    config = config_of(n_turns=2, system_prompt={p.key: [p.text, p.weight] for p in PROMPTS}, num_rows=rows)
    prompts = [[p.key, p.text, p.weight] for p in PROMPTS]
    record = build_record.open_build(
        storage,
        BuildRecord(
            identity={
                "n_turns": 2,
                "model.name": "example/chat-8b",
                "model.commit": "0" * 40,
                "system_prompt": prompts,
            },
            rows_per_partition=grid,
            chat_format={"pre_query": "<|start|>user\n", "user_stop_token_ids": [7]},
            columns=columns_of(config),
            compression="zstd",
            config=config.recorded(),
            versions={"magpie-ray": "0.1.0", "python": "3.11"},
        ),
    )
    records, at = list[PartitionRecord](), 0.0
    runs = [_run(storage, n, rows) for n in (1, 2, 3)]
    for index, start in enumerate(range(0, rows, grid)):
        number = 1 + 3 * index * grid // rows
        part = [_row(row_id, random) for row_id in range(start, start + grid)]
        rejected = Tally(rejected={"empty": 1, "marker": 2}, rejected_at=(2, 1))
        tally = Tally.sum([*(Tally.of_row(row) for row in part), rejected])
        data, written = to_parquet(
            to_table(part, config),
            compression="zstd",
            fingerprint=record.fingerprint,
            run=number,
            tally=tally,
        )
        storage.create(written.partition.key, data)
        at = BEGAN + 86_400 * number + 600 + 3600 * (3 * index * grid % rows) / rows
        os.utime(folder / written.partition.key, (at, at))
        records.append(written)
    rejections = [rejection_of(n, reason=reason) for n, reason in enumerate(["empty", "marker", "empty"])]
    replace_sample(storage, records[0].partition, rejections)
    for run in runs:
        write_actor_history(storage, _lives(run.number, random, num_gpus))
        _end(storage, run)
    manifest.write_manifest(storage, record, records, num_rows=rows)
    manifest.mark_complete(storage)
    return storage


def rejection_of(row_id: int, reason: str) -> Rejection:
    return Rejection(
        row_id=row_id,
        attempt=2,
        role="assistant",
        turn=1,
        reason=reason,
        text=f"{HOSTILE[0]} number {row_id}",
        messages=(row_of(0).messages[0],),
        system_prompt=PROMPTS[0],
        user_tokens=1,
        assistant_tokens=1,
    )


def _row(row_id: int, random: Random) -> Row:
    start, word = random.choice(STARTS), random.choice(WORDS)
    text = f"{start} {word} {row_id}?" if row_id % 8 else "What is love?"
    strange = [*HOSTILE, *LANGUAGES]
    if row_id % 7 == 3:
        text = strange[row_id // 7 % len(strange)]
    texts = (text, f"{text} " + "Well. " * random.randrange(2, 90), "And then?", "So it goes. " * 3)
    messages = tuple(
        Message(
            role="assistant" if i % 2 else "user",
            text=told,
            finish_reason="length" if i % 2 and random.random() < 0.1 else "stop",
            prompt_tokens=10 + i,
            completion_tokens=max(1, len(told) // 4),
        )
        for i, told in enumerate(texts)
    )
    prompt = random.choices(PROMPTS, [p.weight for p in PROMPTS])[0]
    attempt = 1 + (random.random() < 0.2)
    return Row(row_id=row_id, messages=messages, system_prompt=prompt, attempt=attempt)


def _run(storage: Storage, number: int, rows: int) -> RunRecord:
    return run_records.start_run(storage, num_rows=rows, host="head<1>", config={})


def _end(storage: Storage, run: RunRecord) -> None:
    began = BEGAN + 86_400 * run.number
    engines = EngineStats(steps=900, slots=90_000, running=85_000, known_tokens=1000, cached_tokens=970)
    ended = replace(
        run,
        started=_iso(began),
        ended=_iso(began + 4500),
        outcome="done" if run.number == 3 else "failed",
        cause=None if run.number == 3 else f"the engine died {HOSTILE[0]}",
        engines=engines.recorded(),
    )
    storage.replace(run.key, layout.to_json(asdict(ended)))


def _lives(run: int, random: Random, num_gpus: float) -> ActorHistoryRecord:
    lives = list[ActorLife]()
    for slot in range(6 + 12 * (run - 1)):
        at, end = 5.0 + random.random() * 60, 4400.0
        while at < end - 300:
            until = random.uniform(at + 200, end) if random.random() < 0.25 else end
            how = "ended" if until == end else random.choice(["lost", "left"])
            lives.append(
                ActorLife(
                    slot=slot,
                    asked=at,
                    placed=at + 2,
                    ready=at + 100 + random.random() * 50,
                    ended=until,
                    node=f"node-{slot % 4}<i>",
                    rows=slot,
                    end=how,  # type: ignore[arg-type]
                    cause="" if how == "ended" else f"its node is gone {HOSTILE[3]}",
                )
            )
            at = until + 20
    return ActorHistoryRecord(
        run=run,
        device="cuda",
        num_gpus=num_gpus,
        seconds=4500.0,
        lives=tuple(lives),
        left_out=0,
        left_out_seconds=0.0,
        failed_nodes=(
            FailedNode(
                node_id="4f" * 28, host="node-3<i>", failures=4, pauses=2, cause=f"ECC error {HOSTILE[1]}"
            ),
        ),
        generated=((0.0, 0), (600.0, 0), (2400.0, 9000), (4200.0, 12_000)),
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
