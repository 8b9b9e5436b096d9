"""What each step of the pipeline took in and gave out, as one table that adds up.

    python jobs/pipeline/table.py out/pipeline

Everything is counted in the outputs themselves, and `datasets` loads the files for training. The exit code is
1, and the steps are named, where the counts of a step do not add up to what it took in, or where it took in
something else than the step before gave out.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
from rich import box
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from magpie_ray.dataset.reader import Record, read_rows
from magpie_ray.publish.preference import PairSpec, pair_of, with_rewards
from magpie_ray.storage.storage import Storage

ANSWERS = 4  # n in answers.yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The counts of a step. of: the step whose rows or answers it took. others: what is not among `given`."""

    name: str
    of: str = ""
    unit: str
    taken: int
    given: int
    others: Mapping[str, int] = field(default_factory=dict)


def problems(steps: Iterable[Step]) -> list[str]:
    """A sentence for each step that does not add up, or does not go on from the step that it names.

    A step may count answers where the step before counts rows: it is compared with one of its own unit.
    """
    found, given = list[str](), dict[tuple[str, str], int]()
    for step in steps:
        total = step.given + sum(step.others.values())
        if total != step.taken:
            found.append(f"{step.name}: {step.taken:,} {step.unit} went in, and {total:,} are accounted for")
        before = given.get((step.of, step.unit))
        if before not in (None, step.taken):
            found.append(f"{step.name}: {step.of} gave {before:,} {step.unit}, and {step.taken:,} went in")
        given[step.name, step.unit] = step.given
    return found


def steps_of(folder: Path, loaded: Mapping[str, int]) -> list[Step]:
    """The steps whose outputs lie in a folder, in order. loaded: lines of each file for training."""
    rows = {path.name: read(path) for path in sorted(folder.iterdir()) if (path / "_SUCCESS").exists()}
    made, marked, answers, rewards = (
        rows[name] for name in ("instructions", "duplicates", "answers", "rewards")
    )
    labels, kept, best = rows["quality"], rows["kept"], rows["best"]
    steps = [
        Step(name="generate", unit="rows", taken=len(made), given=len(made)),
        labelled("score quality", labels, "input_quality"),
    ]
    if "embeddings" in rows:
        steps.append(labelled("score embeddings", rows["embeddings"], "embedding"))
    steps += [
        deduped(marked),
        selected("select kept", "generate", made, kept, removed(made, kept, labels, marked)),
        Step(name="answer", of="select kept", unit="rows", taken=len(answers), given=len(answers)),
        answered(answers),
        scored(answers, rewards),
        selected("select best", "answer", answers, best, left_by_best(answers, rewards, best)),
        Step(
            name="export messages", of="select best", unit="rows", taken=len(best), given=loaded["best.jsonl"]
        ),
        paired(answers, rewards, loaded),
    ]
    return steps


def read(path: Path) -> list[Record]:
    """The rows of an output."""
    return list(read_rows(Storage(str(path))))


def named(counts: Mapping[str, int]) -> dict[str, int]:
    """Without what did not happen."""
    return {name: count for name, count in counts.items() if count}


def labelled(name: str, rows: list[Record], column: str) -> Step:
    """A score pass over the instructions."""
    nulls = sum(row[column] is None for row in rows)
    return Step(
        name=name,
        of="generate",
        unit="rows",
        taken=len(rows),
        given=len(rows) - nulls,
        others=named({f"null: no {column}": nulls}),
    )


def deduped(marked: list[Record]) -> Step:
    repeats = sum(row["repeat_count"] != 0 for row in marked)
    others = named({"marked: repeats an earlier row": repeats})
    given = len(marked) - repeats
    return Step(name="dedupe", of="generate", unit="rows", taken=len(marked), given=given, others=others)


def selected(name: str, of: str, rows: list[Record], kept: list[Record], reasons: Mapping[str, int]) -> Step:
    return Step(name=name, of=of, unit="rows", taken=len(rows), given=len(kept), others=reasons)


def answered(answers: list[Record]) -> Step:
    """The same pass as `answer`, by its answers."""
    texts = [text for row in answers for text in of_list(row["responses"])]
    given = sum(text is not None for text in texts)
    return Step(
        name=f"answer, n = {ANSWERS}",
        unit="answers",
        taken=ANSWERS * len(answers),
        given=given,
        others=named({"null: not answered": len(texts) - given}),
    )


def scored(answers: list[Record], rewards: list[Record]) -> Step:
    """The rewards of the answers that there are."""
    by_id = {row["row_id"]: of_list(row["instruct_reward"]) for row in rewards}
    of_answers = [
        reward
        for row in answers
        for text, reward in zip(of_list(row["responses"]), by_id[row["row_id"]], strict=True)
        if text is not None
    ]
    given = sum(reward is not None for reward in of_answers)
    return Step(
        name="score rewards",
        of=f"answer, n = {ANSWERS}",
        unit="answers",
        taken=len(of_answers),
        given=given,
        others=named({"null: no reward": len(of_answers) - given}),
    )


def of_list(value: object) -> list[Any]:
    assert isinstance(value, list)
    return value


def removed(
    made: list[Record], kept: list[Record], labels: list[Record], marked: list[Record]
) -> dict[str, int]:
    """Why instructions are not among those kept: the first reason of each."""
    label = {row["row_id"]: row["input_quality"] for row in labels}
    repeats = {row["row_id"] for row in marked if row["repeat_count"] != 0}
    there = {row["source_row_id"] for row in kept}
    reasons = Counter[str]()
    for row_id in (row["row_id"] for row in made):
        if row_id in there:
            continue
        if label[row_id] not in ("good", "excellent"):
            reasons[f"removed: {label[row_id] or 'no label'}"] += 1
        elif row_id in repeats:
            reasons["removed: repeats an earlier row"] += 1
    return dict(sorted(reasons.items()))


def left_by_best(answers: list[Record], rewards: list[Record], best: list[Record]) -> dict[str, int]:
    """Why rows with answers are not among the best."""
    there = {row["source_row_id"] for row in best}
    reasons = Counter[str]()
    for row, numbers in with_rewards(answers, "instruct_reward", iter(rewards)):
        if row["row_id"] in there:
            continue
        known = [number for number in numbers or () if number is not None]
        endings = of_list(row["finish_reasons"])
        if not known:
            reasons["removed: no reward"] += 1
        elif numbers and endings[numbers.index(max(known))] != "stop":
            reasons["removed: the best answer was cut"] += 1
    return dict(reasons)


def paired(answers: list[Record], rewards: list[Record], loaded: Mapping[str, int]) -> Step:
    """Pairs for training and for the test, and why other rows are none."""
    spec, left_out = PairSpec(), Counter[str]()
    for row, numbers in with_rewards(answers, "instruct_reward", iter(rewards)):
        pair = pair_of(row, numbers, spec)
        if isinstance(pair, str):
            left_out[f"left out: {pair}"] += 1
    test = loaded["pairs.test.jsonl"]
    others = {"pairs of the test": test} if test else {}
    return Step(
        name="export preference",
        of="answer",
        unit="rows",
        taken=len(answers),
        given=loaded["pairs.jsonl"],
        others=others | dict(sorted(left_out.items())),
    )


def load(folder: Path) -> dict[str, int]:
    """The number of lines of each file for training, as `datasets` loads it."""
    datasets.disable_progress_bars()
    counts = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("best.jsonl", "pairs.jsonl", "pairs.test.jsonl"):
            file = folder / name
            if not file.exists():
                sys.exit(f"{file}: is not there; jobs/pipeline/run.sh {folder} makes it")
            counts[name] = 0
            if file.stat().st_size:
                loaded = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=cache)
                counts[name] = len(loaded)
    return counts


def table_of(steps: Iterable[Step]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("step")
    table.add_column("of")
    for name in ("in", "out"):
        table.add_column(name, justify="right")
    table.add_column("the others")
    for step in steps:
        others = "\n".join(f"{count:>7,}  {name}" for name, count in step.others.items())
        table.add_row(step.name, step.unit, f"{step.taken:,}", f"{step.given:,}", others)
    return table


def main() -> None:
    folder = Path(sys.argv[1])
    steps = steps_of(folder, load(folder))
    Console(width=100).print(table_of(steps))
    if found := problems(steps):
        sys.exit("\n".join(found))
    print("Every step accounts for all that went in.")


if __name__ == "__main__":
    main()
