"""The loop over a simulated engine: each row once, a full batch, nulls where a row can't be asked about."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.config.scoring import ChoiceColumn, EmbedColumn
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.engine.scoring import ScoreRequest
from magpie_ray.engine.simulated.scoring import SimulatedScoringEngine
from magpie_ray.errors import ConfigError
from magpie_ray.scoring import Scorer
from magpie_ray.scoring.columns import make_columns
from magpie_ray.types import Rejection, ScoredRow
from tests.support.scoring import PlainRow, dialogue, tiny_format, tiny_tokenizer

FIGURES = EngineFigures(max_num_seqs=4, kv_cache_tokens=10_000, max_model_len=200)
COLUMNS = make_columns(
    {
        "colour": ChoiceColumn.model_validate(
            {"choice": ["red", "green"], "prompt": "Colour of {instruction}?"}
        ),
        # Labels that part twice.
        "size": ChoiceColumn.model_validate(
            {"choice": ["small", "small dog", "small dog and cat"], "prompt": "{instruction} {response}"}
        ),
    },
    tokenizer=tiny_tokenizer().tokenizer,
    form=tiny_format(),
)
NAMES = ["colour", "colour_probability", "size", "size_probability"]


def drawn(request: ScoreRequest) -> list[float]:
    draw = random.Random(str((request.prompt_token_ids, request.asked)))
    return [-9 * draw.random() for _ in request.asked]


class Recording(SimulatedScoringEngine):
    """Notes the prompts in the order in which they are submitted, and how full the batches were."""

    def __init__(self) -> None:
        super().__init__(drawn, figures=FIGURES)
        self.prompts: list[list[int]] = []

    def submit(self, request: ScoreRequest) -> None:
        self.prompts.append(request.prompt_token_ids)
        super().submit(request)


def drained(scorer: Scorer) -> list[ScoredRow]:
    return outcomes_of(scorer)[0]


def outcomes_of(scorer: Scorer) -> tuple[list[ScoredRow], list[Rejection]]:
    outcomes = []
    while scorer.busy:
        outcomes += scorer.step()
    rows = [outcome for outcome in outcomes if isinstance(outcome, ScoredRow)]
    return rows, [outcome for outcome in outcomes if isinstance(outcome, Rejection)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 120)), max_size=30))
def test_every_row_comes_out_once_with_all_names_whatever_the_rows_are(
    shapes: list[tuple[bool, int]],
) -> None:
    rows = [
        dialogue(7 * i, *(("frog " * length, "brown") if answered else ("frog " * length,)))
        for i, (answered, length) in enumerate(shapes)
    ]
    engine = SimulatedScoringEngine(drawn, figures=FIGURES)
    scorer = Scorer(engine, COLUMNS)
    scorer.add(rows[:10])
    scorer.add(rows[10:])
    scored, rejections = outcomes_of(scorer)
    assert sorted(row.row_id for row in scored) == [row.row_id for row in rows]
    assert engine.outstanding == 0
    by_id = {row.row_id: row.values for row in scored}
    for row, (answered, length) in zip(rows, shapes, strict=True):
        values = by_id[row.row_id]
        assert list(values) == NAMES
        assert (values["colour"] is None) == (values["colour_probability"] is None)
        if length == 0 or not answered:
            assert values["size"] is None
        elif length < 20:
            assert values["colour"] in ("red", "green")
            assert 0 < float(str(values["size_probability"])) <= 1
    lacking = {row_id for row_id, values in by_id.items() if None in values.values()}
    assert sorted(rejection.row_id for rejection in rejections) == sorted(lacking)
    for row, (answered, length) in zip(rows, shapes, strict=True):
        reasons = [rejection.reason for rejection in rejections if rejection.row_id == row.row_id]
        if length == 0 or (not answered and by_id[row.row_id]["colour"]):
            assert reasons == ["no_text"]
        elif answered and row.row_id in lacking:
            assert reasons == ["context_full"]


def test_the_batch_is_full_until_the_tail() -> None:
    engine = Recording()
    scorer = Scorer(engine, COLUMNS)
    scorer.add(dialogue(i, f"frog {i}", "brown") for i in range(50))
    assert len(drained(scorer)) == 50
    stats = engine.stats()
    # The last rows have at most two forks to go one after the other.
    assert stats.steps <= math.ceil(stats.generated_tokens / FIGURES.max_num_seqs) + 2


def test_the_questions_of_a_row_are_asked_one_after_the_other() -> None:
    engine = Recording()
    scorer = Scorer(engine, COLUMNS)
    scorer.add(dialogue(i, f"frog {i}", "brown") for i in range(4))
    scorer.step()
    decode = tiny_tokenizer().tokenizer.decode
    numbers = [next(i for i in range(4) if f"frog {i}" in decode(ids)) for ids in engine.prompts[:8]]
    assert numbers == [0, 0, 1, 1, 2, 2, 3, 3]


def test_rows_that_wait_are_not_asked_about_before_there_is_room() -> None:
    scorer = Scorer(Recording(), COLUMNS)
    scorer.add(dialogue(i, "frog", "brown") for i in range(100))
    scorer.step()
    assert scorer.unstarted == 100 - FIGURES.max_num_seqs


def test_a_row_that_nothing_is_asked_about_comes_out_without_the_engine() -> None:
    engine = SimulatedScoringEngine(drawn, figures=FIGURES)
    scorer = Scorer(engine, COLUMNS)
    scorer.add([PlainRow(row_id=3)])
    rejection, row = scorer.step()
    assert isinstance(rejection, Rejection)
    assert (rejection.row_id, rejection.reason) == (3, "no_text")
    assert row == ScoredRow(row_id=3, values=dict.fromkeys(NAMES))
    assert not scorer.busy
    assert engine.stats().steps == 0


def test_the_longest_prompt_that_fits_is_asked_about_and_one_token_more_is_not() -> None:
    column = make_columns({"text": EmbedColumn(embed="instruction")}, tokenizer=tiny_tokenizer().tokenizer)
    tokenizer = tiny_tokenizer().tokenizer
    texts = ["frog" + " frog" * count for count in range(300)]
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    engine = SimulatedScoringEngine(lambda _: [1.0], figures=FIGURES, vector_size=1)
    scorer = Scorer(engine, column)
    scorer.add(dialogue(i, text) for i, text in enumerate(texts))
    scored, rejections = outcomes_of(scorer)
    fitting = {row.row_id for row in scored if row.values["text"] is not None}
    assert fitting == {i for i, length in enumerate(lengths) if length <= FIGURES.max_model_len}
    assert len(rejections) == len(texts) - len(fitting) > 0
    assert {rejection.reason for rejection in rejections} == {"context_full"}


def test_discarded_rows_leave_the_engine_and_the_others_stay() -> None:
    engine = Recording()
    scorer = Scorer(engine, COLUMNS)
    scorer.add(dialogue(i, "frog", "brown") for i in range(9))
    scorer.add([PlainRow(row_id=9)])
    before = {row.row_id for row in scorer.step()}
    scorer.discard(range(2, 20))
    assert before | {row.row_id for row in drained(scorer)} == {0, 1}
    assert engine.outstanding == 0
    scorer.add([dialogue(77, "frog", "brown")])
    assert [row.row_id for row in drained(scorer)] == [77]


def test_a_model_that_does_not_serve_a_column_is_refused_before_any_row() -> None:
    columns = make_columns(
        {"text": EmbedColumn(embed="instruction", dimensions=9)}, tokenizer=tiny_tokenizer().tokenizer
    )
    with pytest.raises(ConfigError, match="dimensions"):
        Scorer(SimulatedScoringEngine(lambda _: [1.0], figures=FIGURES, vector_size=8), columns)
