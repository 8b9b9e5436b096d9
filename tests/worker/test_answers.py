"""A worker that answers a source: prompts, several answers, further turns, rows that stay unanswered."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import parse_as
from magpie_ray.dataset.parquet import FOOTER_KEY
from magpie_ray.dataset.rejects import read_rejects
from magpie_ray.engine.protocol import EngineFigures, Request
from magpie_ray.engine.simulated.engine import Answer
from magpie_ray.model.tokenizer import load_tokenizer
from magpie_ray.types import Message, Partition, Rejection, Row
from magpie_ray.worker.answers import Answers
from magpie_ray.worker.spec import WorkerSpec
from magpie_ray.worker.worker import ShardWorker
from tests.chat_format.families import FAMILIES
from tests.chat_format.test_families import tokenizer_of
from tests.support.builds import tokenizer_folder
from tests.support.sources import instructions, write_source
from tests.support.specs import open_worker_spec
from tests.worker.test_worker import FIGURES, Replies, run

MODEL = "builtin:tiny-chat"
WARM = {"assistant": {"temperature": 0.9, "max_tokens": 40}}


def spec_of(folder: Path, records: Any, **keys: Any) -> WorkerSpec:
    """The spec of a pass over these rows that is open, with one grid cell for each eight rows."""
    source = {"path": str(write_source(folder / "rows.jsonl", records))} | keys.pop("source", {})
    config = parse_as(
        AnswerConfig, {"source": source, "output": {"path": str(folder / "out")}, "seed": 3} | keys
    )
    return open_worker_spec(config, grid=8)


def answered(
    spec: WorkerSpec, respond: Callable[[Request], Answer], figures: EngineFigures = FIGURES
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All rows, and what their footers add up to."""
    rows = spec.build_spec.config.num_rows
    partitions = [Partition(start=n, stop=min(n + 8, rows)) for n in range(0, rows, 8)]
    list(run(ShardWorker(spec, Replies(respond, figures=figures)), *partitions))
    tables, counts = [], Counter[str]()
    for partition in partitions:
        file = pq.ParquetFile(pa.BufferReader(spec.storage.read(partition.key)))
        tables.append(file.read())
        footer = json.loads(file.schema_arrow.metadata[FOOTER_KEY])
        counts.update({"further": footer.get("further", 0), "unanswered": footer.get("unanswered", 0)})
    table = pa.concat_tables(tables)
    assert table.schema.equals(spec.build_spec.record(8).schema, check_metadata=False)
    return table.to_pylist(), dict(counts)


def rejected_of(spec: WorkerSpec) -> dict[str, int]:
    """Rejected attempts of all files, by reason."""
    counts = Counter[str]()
    for item in spec.storage.list_objects("data"):
        schema = pq.read_schema(pa.BufferReader(spec.storage.read(f"data/{Path(item.key).name}")))
        counts.update(json.loads(schema.metadata[FOOTER_KEY])["rejected"])
    return dict(counts)


def tokenizer() -> Any:
    return load_tokenizer(spec_model()).tokenizer


def spec_model() -> str:
    from magpie_ray.model.resolve import resolve_model

    return resolve_model(MODEL, None).location


def saying(text: str) -> Answer:
    return tokenizer().encode(text, add_special_tokens=False), "stop"


def conversation(*texts: str, system: str | None = None) -> dict[str, Any]:
    messages = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *messages]}


ROWS = [
    conversation("What is two plus two?"),
    conversation("What is two plus two?", "Four."),
    conversation("Hi", "Hello.", "What is a verb?", "A word.", " Name one. ", "Go."),
    conversation("Name a fruit.", system="You are a cook."),
]


@pytest.mark.parametrize("own", [None, "", "You are terse."])
def test_prompts_are_those_of_the_models_own_template(tmp_path: Path, own: str | None) -> None:
    prompts = dict[str, int]()

    def respond(request: Request) -> Answer:
        prompts[tokenizer().decode(request.prompt_token_ids)] = len(request.prompt_token_ids)
        return saying("One.")

    rows, _ = answered(spec_of(tmp_path, ROWS, system_prompt=own), respond)
    wanted = dict[str, int]()
    for record in ROWS:
        said = [dict(message, content=message["content"].strip()) for message in record["messages"]]
        if said[-1]["role"] == "assistant":
            said.pop()
        if own is not None:
            said = [message for message in said if message["role"] != "system"]
            said = [*([{"role": "system", "content": own}] if own else []), *said]
        ids = tokenizer().apply_chat_template(said, add_generation_prompt=True, return_dict=False)
        wanted[tokenizer().decode(ids)] = len(ids)
    assert prompts == wanted
    assert [len(row["conversation"]) for row in rows] == [2, 2, 6, 2]
    assert {row["conversation"][-1]["content"] for row in rows} == {"One."}
    assert [row["system_prompt"] for row in rows] == (
        [None, None, None, "You are a cook."] if own is None else [own or None] * 4
    )
    assert all(len(row["finish_reasons"]) == len(row["completion_tokens"]) == 1 for row in rows)


def test_answers_to_a_row_come_together_with_seeds_of_their_own(tmp_path: Path) -> None:
    seeds = defaultdict[str, list[int | None]](list)
    order = list[str]()

    def respond(request: Request) -> Answer:
        text = tokenizer().decode(request.prompt_token_ids)
        order.append(text)
        seeds[text].append(request.seed)
        return saying(f"Answer {len(seeds[text])}.")

    records = [
        dict(row, topic=f"t{n}") for n, row in enumerate(instructions(*(f"Say {n}." for n in range(20))))
    ]
    sampling = WARM | {"reproducible": True}
    spec = spec_of(tmp_path, records, n=3, sampling=sampling, source={"keep": ["topic"]})
    rows, counts = answered(spec, respond)
    assert counts == {"further": 40, "unanswered": 0}
    assert [row["row_id"] for row in rows] == list(range(20))
    assert [row["topic"] for row in rows] == [f"t{n}" for n in range(20)]
    for number, row in enumerate(rows):
        assert row["instruction"] == f"Say {number}."
        assert [message["role"] for message in row["conversation"]] == ["user"]
        assert sorted(row["responses"]) == ["Answer 1.", "Answer 2.", "Answer 3."]
        assert row["attempt"] == [1, 1, 1]
        assert [len(row[name]) for name in ("finish_reasons", "prompt_tokens", "completion_tokens")] == [
            3
        ] * 3
    assert all(len(set(of)) == 3 for of in seeds.values())
    assert order == [text for text in dict.fromkeys(order) for _ in range(3)]


@pytest.mark.parametrize(("sampling", "attempts"), [(WARM, 5), ({}, 1)])
def test_a_row_without_an_accepted_answer_stays_so_and_is_counted(
    tmp_path: Path, sampling: Any, attempts: int
) -> None:
    asked = Counter[bool]()

    def respond(request: Request) -> Answer:
        is_bad = "bad" in tokenizer().decode(request.prompt_token_ids)
        asked[is_bad] += 1
        return ([], "stop") if is_bad else saying("Good.")

    texts = [f"This is {'bad' if n % 10 == 3 else 'good'}, {n}." for n in range(40)]
    spec = spec_of(tmp_path, instructions(*texts), sampling=sampling)
    rows, counts = answered(spec, respond)
    assert asked == {True: 4 * attempts, False: 36}
    assert counts["unanswered"] == 4
    for number, row in enumerate(rows):
        is_bad = number % 10 == 3
        assert row["response"] == (None if is_bad else "Good.")
        assert len(row["conversation"]) == (1 if is_bad else 2)
        assert (row["finish_reasons"] == []) == is_bad
        assert row["attempt"] == (attempts if is_bad else 1)
    assert {reject["row_id"] for reject in read_rejects(spec.storage)} == {3, 13, 23, 33}


def test_of_several_answers_one_may_be_lacking(tmp_path: Path) -> None:
    given_out = Counter[str]()

    def respond(request: Request) -> Answer:
        text = tokenizer().decode(request.prompt_token_ids)
        given_out[text] += 1
        return ([], "stop") if given_out[text] > 1 else saying("Only one.")

    rows, counts = answered(spec_of(tmp_path, instructions("A?", "B?"), n=2, sampling=WARM), respond)
    assert counts == {"further": 2, "unanswered": 2}
    for row in rows:
        assert sorted(row["responses"], key=str) == [None, "Only one."]
        assert sorted(row["finish_reasons"], key=str) == [None, "stop"]


def test_a_row_that_fills_the_context_is_not_asked_about(tmp_path: Path) -> None:
    figures = EngineFigures(max_num_seqs=16, kv_cache_tokens=100_000, max_model_len=64)
    records = instructions("Short?", "word " * 200, "Short, too?")
    rows, counts = answered(spec_of(tmp_path, records), lambda request: saying("Yes."), figures)
    assert [row["response"] for row in rows] == ["Yes.", None, "Yes."]
    assert counts["unanswered"] == 1


def test_prompts_that_fill_the_context_are_rejected_by_that_reason_and_answered_as_far_as_there_is_room(
    tmp_path: Path,
) -> None:
    figures = EngineFigures(max_num_seqs=16, kv_cache_tokens=100_000, max_model_len=64)

    def respond(request: Request) -> Answer:
        is_users = tokenizer().decode(request.prompt_token_ids).rstrip().endswith("user<|end_header_id|>")
        return saying("And then?" if is_users else "So it is, and so it was.")

    records = instructions("Short?", "word " * 200, "word " * 30)
    for rule, rejected in (("stop", 1), ("reject", 3)):
        spec = spec_of(
            tmp_path / rule,
            records,
            more_turns=3,
            sampling=WARM,
            acceptance={"context_full": rule, "min_accept_rate": 0},
        )
        rows, counts = answered(spec, respond, figures)
        # A row that has room for some turns has those, whole; a prompt without room has none.
        assert [len(row["finish_reasons"]) for row in rows] == [5, 0, 1]
        assert all(row["conversation"][-1]["role"] == "assistant" for row in (rows[0], rows[2]))
        assert counts["unanswered"] == 1
        # With `stop` a conversation that has grown long is no rejection. No prompt is asked about again.
        assert rejected_of(spec) == {"context_full": rejected}


def test_a_row_whose_answers_are_sampled_in_one_of_several_ways_names_it(tmp_path: Path) -> None:
    asked = defaultdict[str, set[float]](set)

    def respond(request: Request) -> Answer:
        asked[tokenizer().decode(request.prompt_token_ids)].add(request.sampling.settings.temperature)
        return saying("One.")

    mix = [
        {"temperature": 0.5, "max_tokens": 40, "weight": 3},
        {"temperature": 0.9, "max_tokens": 40, "weight": 1},
    ]
    records = instructions(*(f"Say {n}." for n in range(200)))
    found = []
    for n in (1, 3):
        asked.clear()
        spec = spec_of(tmp_path / str(n), records, n=n, sampling={"assistant": mix})
        rows, _ = answered(spec, respond)
        found.append([row["sampling_key"] for row in rows])
        for row in rows:
            [text] = [text for text in asked if f"{row['instruction']}<" in text]
            assert asked[text] == {mix[row["sampling_key"]]["temperature"]}, "all answers to a row alike"
    assert found[0] == found[1]
    assert 120 <= found[0].count(0) <= 180


THINKER = next(family for family in FAMILIES if family.name == "Qwen3")


@pytest.mark.parametrize("n", [1, 2])
def test_reasoning_stands_in_a_column_of_its_own_beside_each_answer(tmp_path: Path, n: int) -> None:
    thinker = tokenizer_of(THINKER)
    times = Counter[str]()

    def respond(request: Request) -> Answer:
        text = thinker.decode(request.prompt_token_ids)
        times[text] += 1
        if "never" in text:
            said = "<think>\nHm, hm, hm"
        elif "no need" in text:
            said = "It is."
        else:
            said = f"<think>\nHm {times[text]}.\n</think>\n\nYes {times[text]}."
        return thinker.encode(said, add_special_tokens=False), "stop"

    spec = spec_of(
        tmp_path,
        instructions("Why is the sky blue?", "Is it? (never)", "Is it? (no need)"),
        n=n,
        model={"name": tokenizer_folder(tmp_path / "model", thinker), "thinking": True},
        sampling={"assistant": {"temperature": 0.9, "max_tokens": 200}},
        acceptance={"min_accept_rate": 0},
    )
    rows, counts = answered(spec, respond)
    if n == 1:
        assert [row["response"] for row in rows] == ["Yes 1.", None, "It is."]
        assert [row["reasoning"] for row in rows] == [["Hm 1."], [], [""]]
    else:
        assert [sorted(row["responses"], key=str) for row in rows] == [
            ["Yes 1.", "Yes 2."],
            [None, None],
            ["It is.", "It is."],
        ]
        assert [row["reasoning"] for row in rows[1:]] == [[None, None], ["", ""]]
        # Each answer has its own.
        assert [thought.replace("Hm", "Yes") for thought in rows[0]["reasoning"]] == rows[0]["responses"]
    assert counts["unanswered"] == n
    assert set(rejected_of(spec)) == {"unfinished_reasoning"}


def test_further_turns_follow_the_answer(tmp_path: Path) -> None:
    def respond(request: Request) -> Answer:
        text = tokenizer().decode(request.prompt_token_ids)
        is_users = text.rstrip().endswith("user<|end_header_id|>")
        return saying("And then?" if is_users else "So it is.")

    records = [conversation("One?"), conversation("One?", "Two.", "Three?")]
    rows, _ = answered(spec_of(tmp_path, records, more_turns=2), respond)
    said = ["So it is.", "And then?", "So it is.", "And then?", "So it is."]
    assert [[m["content"] for m in row["conversation"]] for row in rows] == [
        ["One?", *said],
        ["One?", "Two.", "Three?", *said],
    ]
    assert [len(row["finish_reasons"]) for row in rows] == [5, 5]


def _row(row_id: int) -> Row:
    said = [
        Message(role=role, text=str(row_id), finish_reason="stop", prompt_tokens=1, completion_tokens=1)
        for role in ("user", "assistant")
    ]
    return Row(row_id=row_id, messages=tuple(said), system_prompt=None, attempt=1, given=1)


@given(each=st.integers(1, 4), start=st.integers(0, 5), rows=st.integers(1, 8), data=st.data())
def test_rows_come_once_in_whatever_order_their_answers_do(
    each: int, start: int, rows: int, data: st.DataObject
) -> None:
    answers, wanted = Answers(each), range(start, start + rows)
    shuffled = data.draw(st.permutations(answers.of(wanted)))
    found = [outcome for one in shuffled for outcome in answers.together([_row(one)])]
    assert sorted(outcome.row_id for outcome in found) == list(wanted)
    for outcome in found:
        assert isinstance(outcome, Row)
        assert [int(one.generated[0].text) for one in outcome.each] == list(
            answers.of(range(outcome.row_id, outcome.row_id + 1))
        )
        assert (outcome.unanswered, len(outcome.generated)) == (0, each)


def test_rejections_name_the_row_and_dropped_rows_leave_nothing_behind() -> None:
    answers = Answers(2)
    rejection = Rejection(
        row_id=7,
        attempt=1,
        role="assistant",
        turn=1,
        reason="empty",
        text="",
        user_tokens=0,
        assistant_tokens=1,
    )
    assert [outcome.row_id for outcome in answers.together([_row(6), rejection])] == [3]
    answers.drop(range(3, 4))
    assert list(answers.together([_row(7)])) == []
