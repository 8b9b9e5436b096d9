"""Preference pairs: of several rewarded answers to one prompt, one that is preferred and one that is not.

    {"prompt": [{"role", "content"}, ...], "chosen": [{"role": "assistant", "content"}],
     "rejected": [{"role": "assistant", "content"}], "score_chosen", "score_rejected"}

That is the conversational format with an explicit prompt that TRL's DPO trainer reads. Invariants: a pair and
the file that it goes to follow from the row alone; every row is a pair, or is counted with the reason why it
is none.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from magpie_ray.dataset.reader import Record, messages_of
from magpie_ray.errors import ConfigError
from magpie_ray.publish.export_file import STDOUT, ExportFile, open_export
from magpie_ray.types import Pairing

LeftOut = Literal[
    "no rewards", "fewer than two rewarded answers", "equal texts", "equal rewards", "below the margin"
]

ANSWERS = "responses"
REWARDS = "instruct_reward"

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        ("score_chosen", pa.float64()),
        ("score_rejected", pa.float64()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSpec:
    """How pairs are made. margin: the least difference of rewards. test_share: of the rows, 0 to 1."""

    pairing: Pairing = "best-worst"
    margin: float = 0.0
    test_share: float = 0.0
    system_prompts: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """What was written: pairs for training and for the test, and how many rows were left out, by reason."""

    train: int = 0
    test: int = 0
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The rows that were looked at."""
        return self.train + self.test + sum(self.left_out.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer and its reward."""

    text: str
    reward: float


def export_pairs(
    rows: Iterable[tuple[Record, Sequence[float | None] | None]],
    destination: str,
    spec: PairSpec,
    *,
    force: bool = False,
) -> Pairs:
    """Write the pairs to a file, and those of the test to a second one (`test_name`).

    rows: each with the rewards of its responses, None where it has none. destination, force and the errors:
    as for publish.export.export. ConfigError where a row has not one reward for each answer.
    """
    if destination == STDOUT and spec.test_share:
        raise ConfigError("--test-share: makes a second file, so give a file and not standard output")
    left_out, written = Counter[LeftOut](), Counter[bool]()
    with ExitStack() as stack:
        train = stack.enter_context(open_export(destination, SCHEMA, force=force))
        files: dict[bool, ExportFile] = {False: train}
        if spec.test_share:
            files[True] = stack.enter_context(open_export(test_name(destination), SCHEMA, force=force))
        for row, rewards in rows:
            pair = pair_of(row, rewards, spec)
            if isinstance(pair, str):
                left_out[pair] += 1
                continue
            is_test = is_of_test(row["row_id"], spec.test_share)
            files[is_test].write(pair)
            written[is_test] += 1
    return Pairs(train=written[False], test=written[True], left_out=dict(left_out))


def test_name(destination: str) -> str:
    """FILE with .test before its ending: pairs.test.jsonl.gz of pairs.jsonl.gz."""
    folder, slash, name = destination.rpartition("/")
    stem, dot, ending = name.partition(".")
    return f"{folder}{slash}{stem}.test{dot}{ending}"


def pair_of(
    row: Record, rewards: Sequence[float | None] | None, spec: PairSpec
) -> dict[str, object] | LeftOut:
    """The pair of a row, or why there is none."""
    if rewards is None:
        return "no rewards"
    texts: Any = row[ANSWERS] or []
    if len(texts) != len(rewards):
        raise ConfigError(
            f"row {row['row_id']} has {len(texts)} {ANSWERS} and {len(rewards)} rewards: name the column "
            "that has one reward for each answer with --rewards"
        )
    answers = [
        Answer(text=text, reward=reward)
        for text, reward in zip(texts, rewards, strict=True)
        if text is not None and reward is not None and math.isfinite(reward)
    ]
    chosen = choose(answers, spec, seed=str(row["row_id"]))
    if isinstance(chosen, str):
        return chosen
    best, other = chosen
    return {
        "prompt": _prompt(row, spec.system_prompts),
        "chosen": [{"role": "assistant", "content": best.text}],
        "rejected": [{"role": "assistant", "content": other.text}],
        "score_chosen": best.reward,
        "score_rejected": other.reward,
    }


def choose(answers: Sequence[Answer], spec: PairSpec, *, seed: str) -> tuple[Answer, Answer] | LeftOut:
    """The preferred answer and the other one. The first of equal answers counts.

    seed: decides which answer is drawn for best-random.
    """
    if len(answers) < 2:
        return "fewer than two rewarded answers"
    first_with = dict[str, Answer]()
    for answer in answers:
        first_with.setdefault(answer.text, answer)
    if len(first_with) < 2:
        return "equal texts"
    best = max(first_with.values(), key=lambda answer: answer.reward)
    below = [answer for answer in first_with.values() if answer.reward < best.reward]
    if not below:
        return "equal rewards"
    far = [answer for answer in below if best.reward - answer.reward >= spec.margin]
    if not far:
        return "below the margin"
    if spec.pairing == "best-random":
        return best, far[int(_share(f"pair {seed}") * len(far))]
    return best, min(far, key=lambda answer: answer.reward)


def is_of_test(row_id: object, test_share: float) -> bool:
    """Whether a row belongs to the test. A larger share adds rows and takes none away."""
    return _share(f"test {row_id}") < test_share


def _share(text: str) -> float:
    """A number from 0 to less than 1 that follows from the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _prompt(row: Record, system_prompts: bool) -> list[dict[str, str]]:
    """The messages before the answers, without an answer that stands there already."""
    messages = [(role, text) for role, text in messages_of(row) if role != "system"]
    if messages and messages[-1][0] == "assistant":
        messages.pop()
    system = row.get("system_prompt")
    if system_prompts and system:
        messages.insert(0, ("system", str(system)))
    return [{"role": role, "content": text} for role, text in messages]


def with_rewards(
    rows: Iterable[Record], column: str, scores: Iterator[Record] | None = None
) -> Iterator[tuple[Record, Sequence[float | None] | None]]:
    """Each row with the rewards of its answers.

    scores: the rows of another data set that have the column, in order of row_id as `rows` are; None where
    the rows have it themselves.
    """
    if scores is None:
        yield from ((row, _list(row[column])) for row in rows)
        return
    scored = next(scores, None)
    for row in rows:
        while scored is not None and _id(scored) < _id(row):
            scored = next(scores, None)
        is_same = scored is not None and _id(scored) == _id(row)
        yield row, _list(scored[column]) if scored is not None and is_same else None


def rewards_column(schema: pa.Schema, wanted: str | None, *, of: str) -> str:
    """The column of rewards: the wanted one, instruct_reward, or the only list of numbers.

    of: the data set, for messages. ConfigError where there is none, or several.
    """
    lists = [field.name for field in schema if _is_list_of_floats(field.type)]
    if wanted is not None:
        if wanted in lists:
            return wanted
        known = ", ".join(lists) or "none"
        raise ConfigError(f"--rewards: {of} has no list of numbers {wanted!r}; lists of numbers: {known}")
    if REWARDS in lists or len(lists) == 1:
        return REWARDS if REWARDS in lists else lists[0]
    if not lists:
        raise ConfigError(
            f"--to preference: {of} has no column with a list of rewards: name the data set that has it with "
            "--scores PATH"
        )
    raise ConfigError(f"--rewards: {of} has several lists of numbers, name one: {', '.join(lists)}")


def check_answers(schema: pa.Schema, *, of: str) -> None:
    """ConfigError for a data set whose rows have not several answers each."""
    if ANSWERS not in schema.names or schema.field(ANSWERS).type != pa.list_(pa.string()):
        raise ConfigError(
            f"--to preference: {of} has no column {ANSWERS} with several answers a row: `magpie-ray answer` "
            "with n: 2 or more makes it"
        )
    if not {"conversation", "instruction"} & set(schema.names):
        raise ConfigError(f"--to preference: {of} has neither conversation nor instruction, so no prompt")


def _is_list_of_floats(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_floating(kind.value_type))


def _id(row: Record) -> int:
    return int(str(row["row_id"]))


def _list(value: object) -> Sequence[float | None] | None:
    return value if isinstance(value, list) else None
