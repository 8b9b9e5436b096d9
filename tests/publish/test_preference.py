"""Preference pairs: which two answers of a row, which file, and why a row is none."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.errors import ConfigError
from magpie_ray.publish.export_file import STDOUT
from magpie_ray.publish.preference import (
    Answer,
    PairSpec,
    check_answers,
    choose,
    export_pairs,
    is_of_test,
    pair_of,
    rewards_column,
    test_name,
    with_rewards,
)
from magpie_ray.types import Pairing

test_name.__test__ = False  # type: ignore[attr-defined]  # it is no test

ROW: dict[str, object] = {
    "row_id": 7,
    "conversation": [{"role": "user", "content": "Why?"}],
    "system_prompt": "Be kind.",
    "responses": ["a", "b", "c"],
}


def answers_of(*pairs: tuple[str, float]) -> list[Answer]:
    return [Answer(text=text, reward=reward) for text, reward in pairs]


def rows_of(count: int, rewards: Sequence[float | None] = (0.0, 1.0, 2.0)) -> list[tuple[Any, Any]]:
    return [({**ROW, "row_id": number}, rewards) for number in range(count)]


def test_the_best_stands_against_the_worst() -> None:
    assert pair_of(ROW, [0.5, -1.0, 2.0], PairSpec()) == {
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "c"}],
        "rejected": [{"role": "assistant", "content": "b"}],
        "score_chosen": 2.0,
        "score_rejected": -1.0,
    }


def test_the_prompt_has_the_history_and_no_answer_that_stands_there_already() -> None:
    said = [("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")]
    row = {**ROW, "conversation": [{"role": role, "content": text} for role, text in said]}
    pair: Any = pair_of(row, [0, 1, 2], PairSpec(system_prompts=True))
    assert [message["content"] for message in pair["prompt"]] == ["Be kind.", "1", "2", "3"]


@pytest.mark.parametrize(
    ("rewards", "margin", "reason"),
    [
        (None, 0.0, "no rewards"),
        ([1.0, None, float("nan")], 0.0, "fewer than two rewarded answers"),
        ([1.0, 1.0, 1.0], 0.0, "equal rewards"),
        ([1.0, 1.2, 1.4], 0.5, "below the margin"),
    ],
)
def test_a_row_without_a_pair_has_a_reason(
    rewards: Sequence[float | None] | None, margin: float, reason: str
) -> None:
    assert pair_of(ROW, rewards, PairSpec(margin=margin)) == reason


def test_equal_texts_are_no_pair() -> None:
    assert choose(answers_of(("a", 1.0), ("a", 2.0)), PairSpec(), seed="") == "equal texts"
    best, worst = choose(answers_of(("a", 1.0), ("a", 9.0), ("b", 2.0)), PairSpec(), seed="")
    assert (best, worst) == (Answer(text="b", reward=2.0), Answer(text="a", reward=1.0))


ANSWERS = st.lists(st.builds(Answer, text=st.sampled_from("abcd"), reward=st.floats(-9, 9)), max_size=6)
PAIRINGS = st.sampled_from(["best-worst", "best-random"])


@given(ANSWERS, PAIRINGS, st.floats(0, 3), st.text(max_size=3))
def test_a_pair_keeps_what_its_spec_says(
    answers: list[Answer], pairing: Pairing, margin: float, seed: str
) -> None:
    spec = PairSpec(pairing=pairing, margin=margin)
    chosen = choose(answers, spec, seed=seed)
    assert choose(answers, spec, seed=seed) == chosen
    if isinstance(chosen, str):
        return
    best, other = chosen
    assert {best, other} <= set(answers)
    assert best.text != other.text
    assert best.reward > other.reward
    assert best.reward - other.reward >= margin


@given(st.integers(0, 10**9), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_the_rows_of_the_test(row_id: int, one: float, two: float) -> None:
    assert is_of_test(row_id, min(one, two)) <= is_of_test(row_id, max(one, two))
    assert not is_of_test(row_id, 0.0)


def test_best_random_draws_among_all_others() -> None:
    answers = answers_of(("a", 0.0), ("b", 1.0), ("c", 2.0))
    drawn = {choose(answers, PairSpec(pairing="best-random"), seed=str(n))[1] for n in range(50)}
    assert drawn == set(answers[:2])


def test_the_pairs_go_to_a_file_and_a_share_to_the_test(tmp_path: Path) -> None:
    destination = str(tmp_path / "pairs.jsonl.gz")
    pairs = export_pairs(rows_of(1000), destination, PairSpec(test_share=0.1))
    assert test_name(destination) == str(tmp_path / "pairs.test.jsonl.gz")
    counts = [
        len(gzip.decompress(Path(name).read_bytes()).splitlines())
        for name in (destination, test_name(destination))
    ]
    assert counts == [pairs.train, pairs.test]
    assert 70 < pairs.test < 130
    assert pairs.rows == 1000


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    rows = [*rows_of(3), *rows_of(2, [1.0, 1.0, 1.0]), (ROW, None)]
    pairs = export_pairs(rows, str(tmp_path / "pairs.jsonl"), PairSpec())
    assert (pairs.train, pairs.test, pairs.rows) == (3, 0, 6)
    assert pairs.left_out == {"equal rewards": 2, "no rewards": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_a_parquet_file_has_the_same_pairs(tmp_path: Path) -> None:
    for name in ("pairs.parquet", "pairs.jsonl"):
        export_pairs(rows_of(3), str(tmp_path / name), PairSpec())
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert pq.read_table(tmp_path / "pairs.parquet").to_pylist() == lines


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    rows = [*rows_of(3), ({**ROW, "responses": ["a"]}, [1.0, 2.0])]
    with pytest.raises(ConfigError, match="row 7 has 1 responses and 2 rewards"):
        export_pairs(rows, str(tmp_path / "pairs.jsonl"), PairSpec(test_share=0.2))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="--test-share"):
        export_pairs(rows, STDOUT, PairSpec(test_share=0.2))


def test_rewards_of_another_data_set_are_found_by_row_id() -> None:
    rows = [{"row_id": number} for number in (1, 3, 4, 8)]
    scores = [{"row_id": number, "r": [float(number)]} for number in (0, 1, 2, 4, 5)]
    found = list(with_rewards(rows, "r", iter(scores)))
    assert [rewards for _, rewards in found] == [[1.0], None, [4.0], None]
    assert [rewards for _, rewards in with_rewards([{"row_id": 1, "r": [2.0]}], "r")] == [[2.0]]


FLOATS, TEXTS = pa.list_(pa.float64()), pa.list_(pa.string())


def test_the_column_of_rewards_is_found_or_asked_for() -> None:
    one = pa.schema([("row_id", pa.int64()), ("r", FLOATS)])
    two = pa.schema([("r", FLOATS), ("instruct_reward", pa.list_(pa.float32()))])
    assert rewards_column(one, None, of="x") == "r"
    assert rewards_column(two, None, of="x") == "instruct_reward"
    assert rewards_column(two, "r", of="x") == "r"
    with pytest.raises(ConfigError, match="no list of numbers 'q'; lists of numbers: r, instruct_reward"):
        rewards_column(two, "q", of="x")
    with pytest.raises(ConfigError, match="--scores PATH"):
        rewards_column(pa.schema([("r", pa.float64())]), None, of="x")
    with pytest.raises(ConfigError, match="several lists of numbers, name one: r, s"):
        rewards_column(pa.schema([("r", FLOATS), ("s", FLOATS)]), None, of="x")


def test_rows_with_one_answer_make_no_pairs() -> None:
    check_answers(pa.schema([("instruction", pa.string()), ("responses", TEXTS)]), of="x")
    with pytest.raises(ConfigError, match="no column responses"):
        check_answers(pa.schema([("instruction", pa.string()), ("response", pa.string())]), of="x")
    with pytest.raises(ConfigError, match="so no prompt"):
        check_answers(pa.schema([("responses", TEXTS)]), of="x")
