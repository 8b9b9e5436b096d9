"""Scoring beside bare loops of vLLM over the same inputs, and which order of a question costs less.

Each kind has one engine: vLLM's own offline class, of which the scorer takes the LLMEngine. Both sides get
texts, begin with an empty cache, and take turns, so that a busy machine slows both. The bundled model serves
all kinds: it writes, has a head that makes it a reward model, and vLLM makes an embedding model of it.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.benchmarks.result import Cell, Claim, Result, Table
from jobs.tiny_chat import corpus
from jobs.tiny_chat.reward_model import TINY_CHAT, write_reward_model
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
from magpie_ray.engine.vllm.args import VllmSettings, engine_args, set_environment
from magpie_ray.engine.vllm.llm import StartedLlm
from magpie_ray.engine.vllm.processes import ProcessWatch
from magpie_ray.engine.vllm.scoring import VllmScoringEngine, start_vllm_scoring
from magpie_ray.engine.vllm.stats import StepCounter
from magpie_ray.model.tokenizer import load_tokenizer
from magpie_ray.scoring import Scorer
from magpie_ray.scoring.columns import make_columns
from magpie_ray.types import ScoredRow

_ROWS, _WARM_UP_ROWS, _REPEATS = 1200, 100, 5
_ORDER_ROWS = 60
_LEAST = 0.95

# They begin with different tokens, so that both sides ask one thing of a row.
_TOPICS = ("animals", "astronomy", "geography", "grammar", "literature", "music", "sports", "units")
_COLUMNS: Mapping[ScoreKind, ScoreColumn] = {
    "choice": ChoiceColumn.model_validate(
        {"choice": list(_TOPICS), "prompt": "{instruction}\nWhat is the topic?"}
    ),
    "reward": RewardColumn(reward="response"),
    "embed": EmbedColumn(embed="instruction"),
}
# Five questions about a row, of about 120 tokens each to SmolLM2, as in the ready configs.
_ASPECTS = ("difficulty", "quality", "safety", "usefulness", "clarity")
_EXPLANATION = "It is low if a child could see it at once, and high if experts differ after long work. " * 5


@dataclass(frozen=True)
class _Row:
    row_id: int
    messages: tuple[tuple[str, str], ...]
    system_prompt: None = None
    responses: tuple[str, ...] = ()
    kept: None = None


def run() -> Result:
    """About three minutes on two cores."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray sets it for an actor of one CPU
    set_environment("cpu")
    rates: list[dict[str, Cell]] = []
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as folder:
        models: Mapping[ScoreKind, Path] = {
            "choice": TINY_CHAT,
            "reward": write_reward_model(Path(folder)),
            "embed": TINY_CHAT,
        }
        for kind, model in models.items():
            bare, ours = _side_by_side(kind, str(model))
            share = statistics.median(b / o for b, o in zip(bare, ours, strict=True))
            for name, seconds in ((f"bare loop, {kind}", bare), (f"scorer, {kind}", ours)):
                rates.append({"system": name, "rows_per_s": _ROWS / statistics.median(seconds)})
            claims.append(
                Claim(what=f"rows/s of a bare loop, {kind}", value=share, must_be="at least", bound=_LEAST)
            )
    return Result(
        name="scoring",
        tables=[
            Table(title=f"{_ROWS} rows, medians of {_REPEATS}", rows=rates),
            Table(title=f"orders of {len(_ASPECTS)} questions", rows=orders(str(TINY_CHAT))),
        ],
        claims=claims,
        notes=["the share of a claim is the median over pairs of runs, one behind the other"],
    )


def _side_by_side(kind: ScoreKind, model: str) -> tuple[list[float], list[float]]:
    """Seconds of the bare loop and of the scorer, one after the other, several times."""
    from vllm import LLM

    engine = EngineConfig(max_model_len=1024)
    settings = VllmSettings(engine=engine, model=model, revision=None, device="cpu", seed=0)
    llm = LLM(**engine_args(settings, runner="generate" if kind == "choice" else "pooling"))
    started = StartedLlm(
        llm_engine=llm.llm_engine,
        counter=StepCounter(),
        secrets=frozenset(),
        processes=ProcessWatch(()),
    )
    scoring = VllmScoringEngine(started, kind)
    rows = list(_rows())
    bare, ours = _bare_loop(kind, llm, model), _scoring_loop(kind, scoring, model)
    seconds: tuple[list[float], list[float]] = ([], [])
    for loop in (bare, ours):
        loop(rows[:_WARM_UP_ROWS])
    for _ in range(_REPEATS):
        for loop, taken in zip((bare, ours), seconds, strict=True):
            llm.reset_prefix_cache()
            begun = time.perf_counter()
            loop(rows)
            taken.append(time.perf_counter() - begun)
    scoring.close()
    return seconds


def _rows() -> Iterator[_Row]:
    for row_id, messages in enumerate(corpus.dialogues(_ROWS, seed=3)):
        spoken = [message for message in messages if message["role"] != "system"][:2]
        yield _Row(row_id, tuple((message["role"], message["content"]) for message in spoken))


Loop = Callable[[list[_Row]], Any]


def _scoring_loop(kind: ScoreKind, engine: VllmScoringEngine, model: str) -> Loop:
    columns = _columns({"it": _COLUMNS[kind]}, model)

    def loop(rows: list[_Row]) -> Any:
        return _scored(engine, columns, rows)

    return loop


def _columns(columns: Mapping[str, ScoreColumn], model: str) -> Any:
    loaded = load_tokenizer(model)
    writes = kind_of_all(columns) == "choice"
    form = model_format(loaded, own_format=None, thinking=False) if writes else None
    return make_columns(columns, tokenizer=loaded.tokenizer, form=form)


def _scored(engine: VllmScoringEngine, columns: Any, rows: list[_Row]) -> dict[int, Any]:
    scorer = Scorer(engine, columns)
    scorer.add(rows)
    values: dict[int, Any] = {}
    while scorer.busy:
        values |= {row.row_id: row.values for row in scorer.step() if isinstance(row, ScoredRow)}
    return values


def _bare_loop(kind: ScoreKind, llm: Any, model: str) -> Loop:
    """What a script would call, once for all rows: vLLM's offline class with the rendered texts."""
    from vllm import PoolingParams, SamplingParams

    tokenizer = load_tokenizer(model).tokenizer

    def rendered(messages: list[dict[str, str]], *, ask: bool) -> str:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
        return str(text).removeprefix(tokenizer.bos_token)  # which vLLM puts in front itself

    def choice(rows: list[_Row]) -> Any:
        question = _COLUMNS["choice"].prompt  # type: ignore[union-attr]
        first = [tokenizer.encode(topic, add_special_tokens=False)[0] for topic in _TOPICS]
        params = SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=sorted(set(first)))
        asked = [question.replace("{instruction}", row.messages[0][1]) for row in rows]
        texts = [rendered([{"role": "user", "content": text}], ask=True) for text in asked]
        return llm.generate(texts, params, use_tqdm=False)

    def reward(rows: list[_Row]) -> Any:
        dialogues = [[{"role": role, "content": text} for role, text in row.messages] for row in rows]
        texts = [rendered(dialogue, ask=False) for dialogue in dialogues]
        return llm.classify(texts, pooling_params=PoolingParams(use_activation=False), use_tqdm=False)

    def embed(rows: list[_Row]) -> Any:
        return llm.embed([row.messages[0][1] for row in rows], use_tqdm=False)

    return {"choice": choice, "reward": reward, "embed": embed}[kind]


def orders(model: str) -> list[dict[str, Cell]]:
    """What the cache saves with the question before the row and behind it, for short and long rows."""
    texts = [text for text in corpus.first_instructions() if len(text) > 25]
    engine_settings = EngineConfig(max_model_len=2048)
    settings = VllmSettings(engine=engine_settings, model=model, revision=None, device="cpu", seed=0)
    table: list[dict[str, Cell]] = []
    with _closing(start_vllm_scoring(settings, "choice")) as engine:
        for sentences in (1, 40):
            for number in (1, len(_ASPECTS)):
                for order in ("question first", "row first"):
                    # Other sentences each time, so that nothing is in the cache.
                    del texts[0]
                    rows = [
                        _Row(i, (("user", " ".join(texts[(i + j) % len(texts)] for j in range(sentences))),))
                        for i in range(_ORDER_ROWS)
                    ]
                    engine.llm_engine.reset_prefix_cache()
                    columns = _columns(_questions(number, order), model)
                    case: dict[str, Cell] = {"questions": number, "sentences_in_a_row": sentences}
                    table.append({**case, "order": order, **_measured(engine, columns, rows)})
    return table


def _questions(number: int, order: str) -> dict[str, ScoreColumn]:
    parts = {
        aspect: [f"Say how high the {aspect} of the text is. {_EXPLANATION}", "The text: {instruction}"]
        for aspect in _ASPECTS[:number]
    }
    return {
        aspect: ChoiceColumn.model_validate(
            {
                "choice": ["low", "high"],
                "prompt": "\n\n".join(both if order == "question first" else reversed(both)),
            }
        )
        for aspect, both in parts.items()
    }


def _measured(engine: VllmScoringEngine, columns: Any, rows: list[_Row]) -> dict[str, Cell]:
    before, begun = engine.stats(), time.perf_counter()
    _scored(engine, columns, rows)
    seconds, after = time.perf_counter() - begun, engine.stats()
    prompts = after.prompt_tokens - before.prompt_tokens
    cached = after.cached_tokens - before.cached_tokens
    return {
        "prompt_tokens": prompts,
        "cached_%": 100 * cached / prompts,
        "prefilled_a_row": (prompts - cached) / len(rows),
        "rows_per_s": len(rows) / seconds,
    }


@contextmanager
def _closing(engine: VllmScoringEngine) -> Iterator[VllmScoringEngine]:
    try:
        yield engine
    finally:
        engine.close()
