"""Labels, rewards and embeddings by vLLM equal those that transformers computes."""

import math
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.tiny_chat import corpus
from jobs.tiny_chat.reward_model import write_reward_model
from jobs.tiny_chat.reward_pairs import held_out_pairs
from magpie_ray.chat_format.of_model import model_format
from magpie_ray.config.scoring import (
    ChoiceColumn,
    EmbedColumn,
    RewardColumn,
    ScoreColumn,
    ScoreKind,
    kind_of_all,
)
from magpie_ray.config.sections import EngineConfig
from magpie_ray.engine.vllm.args import VllmSettings
from magpie_ray.engine.vllm.scoring import VllmScoringEngine, start_vllm_scoring
from magpie_ray.errors import ConfigError
from magpie_ray.model.tokenizer import load_tokenizer
from magpie_ray.scoring import Scorer
from magpie_ray.scoring.columns import make_columns
from magpie_ray.types import ScoredRow
from tests.support.minilm import minilm as minilm
from tests.support.scoring import TINY_CHAT, PlainRow, dialogue

pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-3


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """As Ray sets it for an actor of one CPU."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@contextmanager
def started(model: Path | str, kind: ScoreKind, **engine: Any) -> Iterator[VllmScoringEngine]:
    settings = VllmSettings(
        engine=EngineConfig(max_model_len=engine.pop("max_model_len", 512), extra=engine),
        model=str(model),
        revision=None,
        device="cpu",
        seed=0,
    )
    running = start_vllm_scoring(settings, kind)
    try:
        yield running
    finally:
        running.close()


def scored(
    engine: VllmScoringEngine,
    model: Path | str,
    columns: Mapping[str, ScoreColumn],
    rows: list[PlainRow],
    *,
    several: bool = False,
) -> dict[int, Mapping[str, Any]]:
    loaded = load_tokenizer(str(model))
    form = model_format(loaded, own_format=None, thinking=False) if kind_of_all(columns) == "choice" else None
    scorer = Scorer(engine, make_columns(columns, tokenizer=loaded.tokenizer, form=form, several=several))
    scorer.add(rows)
    result = {}
    while scorer.busy:
        result |= {row.row_id: row.values for row in scorer.step() if isinstance(row, ScoredRow)}
    return result


# ------------------------------------------------------------------------------------------------- choice

INSTRUCTIONS = (
    "What is the capital of France?",
    "Prove that there are infinitely many primes, and say why the proof is constructive.",
    "Schreib mir ein kurzes Gedicht über den Herbst.",
    "Write a Python function that reverses a list in place without slicing.",
)
QUESTIONS: Mapping[str, ScoreColumn] = {
    # Some labels begin alike, and one begins as a whole other one.
    "difficulty": ChoiceColumn.model_validate(
        {
            "choice": ["very easy", "easy", "medium", "hard", "hard to tell", "very hard"],
            "prompt": "Request: {instruction}\n\nHow difficult is the request? One of:\n{labels}",
        }
    ),
    "language": ChoiceColumn.model_validate(
        {
            "choice": {"English": "in English", "German": None, "another language": None},
            "prompt": "Request: {instruction}\n\nWhich language is it in? One of:\n{labels}",
        }
    ),
}


@pytest.fixture(scope="module")
def chat_engine(smollm2: Path) -> Iterator[VllmScoringEngine]:
    with started(smollm2, "choice") as running:
        yield running


def label_probabilities(
    model: Any, prompt: list[int], labels: Mapping[str, list[int]], end: int
) -> dict[str, float]:
    """Of each label: at each token, the tokens that some label goes on with have probabilities of sum one."""
    closed = {label: [*ids, end] for label, ids in labels.items()}
    result = {}
    for label, ids in closed.items():
        with torch.no_grad():
            logs = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        total = 0.0
        for depth, token_id in enumerate(ids):
            legal = {other[depth] for other in closed.values() if other[:depth] == ids[:depth]}
            here = logs[len(prompt) - 1 + depth]
            total += float(here[token_id] - torch.logsumexp(here[sorted(legal)], 0))
        result[label] = math.exp(total)
    return result


def test_labels_and_their_probabilities_are_those_of_the_model_itself(
    chat_engine: VllmScoringEngine, smollm2: Path
) -> None:
    from transformers import AutoModelForCausalLM

    rows = [dialogue(i, text) for i, text in enumerate(INSTRUCTIONS)]
    values = scored(chat_engine, smollm2, QUESTIONS, rows)
    tokenizer = load_tokenizer(str(smollm2)).tokenizer
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    for row_id, text in enumerate(INSTRUCTIONS):
        for name, column in QUESTIONS.items():
            assert isinstance(column, ChoiceColumn)
            listed = "\n".join(f"- {x}: {what}" if what else f"- {x}" for x, what in column.choice.items())
            question = column.prompt.replace("{instruction}", text).replace("{labels}", listed)
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=False,
            )
            labels = {x: tokenizer(x, add_special_tokens=False)["input_ids"] for x in column.choice}
            end = tokenizer.convert_tokens_to_ids("<|im_end|>")
            expected = label_probabilities(model, list(prompt), labels, end)
            assert math.fsum(expected.values()) == pytest.approx(1.0, abs=1e-5)
            found = values[row_id][name]
            assert found in column.choice
            assert values[row_id][f"{name}_probability"] == pytest.approx(expected[found], abs=TOLERANCE)
            assert expected[found] >= max(expected.values()) - TOLERANCE


def test_the_questions_of_a_row_find_the_row_in_the_cache(
    chat_engine: VllmScoringEngine, smollm2: Path
) -> None:
    """Of four questions that begin with the row, three read whole blocks of it from the cache."""
    questions = {
        name: ChoiceColumn.model_validate(
            {"choice": ["yes", "no"], "prompt": f"{{instruction}}\n\nIs it {name}?"}
        )
        for name in ("hard", "short", "polite", "useful")
    }
    draw = random.Random(7)
    words = " ".join(INSTRUCTIONS).split()
    rows = [dialogue(i, " ".join(draw.choice(words) for _ in range(150))) for i in range(6)]
    before = chat_engine.stats()
    scored(chat_engine, smollm2, questions, rows)
    after = chat_engine.stats()
    tokenizer = load_tokenizer(str(smollm2)).tokenizer
    block = chat_engine.llm_engine.vllm_config.cache_config.block_size
    shared = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": row.messages[0][1]}], tokenize=True, return_dict=False
        )
        for row in rows
    ]
    repeated = sum(3 * ((len(ids) - 8) // block * block) for ids in shared)
    assert after.cached_tokens - before.cached_tokens >= 0.95 * repeated


# ------------------------------------------------------------------------------------------------- reward


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reward_model(tmp_path_factory.mktemp("models") / "tiny-reward")


@pytest.fixture(scope="module")
def reward_engine(reward_model: Path) -> Iterator[VllmScoringEngine]:
    with started(reward_model, "reward") as running:
        yield running


def test_rewards_are_the_raw_logits_of_the_model_itself(
    reward_engine: VllmScoringEngine, reward_model: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    dialogues = [
        [m["content"] for m in messages if m["role"] != "system"]
        for messages in corpus.dialogues(200, seed=11)
    ]
    rows = [dialogue(i, *texts) for i, texts in enumerate(dialogues)]
    values = scored(reward_engine, reward_model, {"it": RewardColumn(reward="response")}, rows)
    tokenizer = load_tokenizer(str(reward_model)).tokenizer
    model = AutoModelForSequenceClassification.from_pretrained(reward_model, dtype=torch.float32)
    for row in rows:
        messages = [{"role": role, "content": text} for role, text in row.messages]
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        with torch.no_grad():
            [[logit]] = model(torch.tensor([ids])).logits.tolist()
        assert values[row.row_id]["it"] == pytest.approx(logit, abs=TOLERANCE)
    rewards = [value["it"] for value in values.values()]
    assert max(map(abs, rewards)) > 1, "no sigmoid and no softmax"


def test_right_answers_rank_above_wrong_ones(reward_engine: VllmScoringEngine, reward_model: Path) -> None:
    pairs = list(held_out_pairs(1000, seed=1))
    rows = [dialogue(i, pair.instruction, responses=(pair.right, pair.wrong)) for i, pair in enumerate(pairs)]
    columns = {"it": RewardColumn(reward="response")}
    values = scored(reward_engine, reward_model, columns, rows, several=True)
    right = sum(first > second for first, second in (values[row.row_id]["it"] for row in rows))
    assert right >= 0.95 * len(rows)


def test_a_model_that_writes_gives_no_rewards_and_is_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match=r"columns of the kind reward need a reward model"):
        start_vllm_scoring(
            VllmSettings(engine=EngineConfig(), model=TINY_CHAT, revision=None, device="cpu", seed=0),
            "reward",
        )


# -------------------------------------------------------------------------------------------------- embed


def test_embeddings_are_those_of_the_model_itself_also_where_they_are_cut(minilm: Path) -> None:
    from transformers import AutoModel

    texts = [*INSTRUCTIONS, *corpus.first_instructions()[:60:3]]
    rows = [dialogue(i, text) for i, text in enumerate(texts)]
    columns = {
        "whole": EmbedColumn(embed="instruction"),
        "cut": EmbedColumn(embed="instruction", dimensions=64),
    }
    with started(minilm, "embed", max_model_len=None) as engine:
        assert engine.vector_size == 384
        values = scored(engine, minilm, columns, rows)
    tokenizer = load_tokenizer(str(minilm)).tokenizer
    model = AutoModel.from_pretrained(minilm, dtype=torch.float32)
    for row_id, text in enumerate(texts):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = hidden.mean(0)
        for name, expected in (("whole", mean), ("cut", mean[:64])):
            vector = torch.tensor(values[row_id][name])
            assert vector.norm().item() == pytest.approx(1.0, abs=1e-5)
            difference = (vector - expected / expected.norm()).abs().max().item()
            assert difference < TOLERANCE
