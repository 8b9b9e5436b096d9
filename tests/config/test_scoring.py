"""The section `columns`: what is taken, what is refused, and the ready configs that have one."""

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from magpie_ray.config.fields import Section
from magpie_ray.config.problems import problem_lines
from magpie_ray.config.scoring import (
    ROW_COLUMNS,
    ChoiceColumn,
    Columns,
    EmbedColumn,
    RewardColumn,
    kind_of_all,
    names_of,
)
from magpie_ray.dataset.columns import COLUMNS
from tests.support.paths import ROOT

READY = sorted((ROOT / "magpie_ray" / "configs").glob("score-*.yaml"))
QUESTION = {"choice": ["easy", "hard"], "prompt": "{instruction} Easy or hard?"}


class WithColumns(Section):
    columns: Columns


def taken(columns: Any) -> dict[str, Any]:
    return dict(WithColumns.model_validate({"columns": columns}).columns)


def refused(columns: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        WithColumns.model_validate({"columns": columns})
    return problem_lines(caught.value, WithColumns)


def test_each_kind_of_column_is_read() -> None:
    both = taken(
        {
            "difficulty": QUESTION,
            "b": QUESTION | {"choice": {"x": "it is so", "y": None}, "prompt": "{labels} {response}"},
        }
    )
    assert isinstance(both["difficulty"], ChoiceColumn)
    assert both["difficulty"].choice == {"easy": None, "hard": None}
    assert both["b"].choice == {"x": "it is so", "y": None}
    assert (both["difficulty"].texts, both["b"].texts) == (("instruction",), ("response",))
    assert kind_of_all(both) == "choice"
    [reward] = taken({"r": {"reward": "response", "system_prompt": True}}).values()
    assert reward == RewardColumn(reward="response", system_prompt=True)
    [vector] = taken({"v": {"embed": "instruction", "dimensions": "2.56e2"}}).values()
    assert vector == EmbedColumn(embed="instruction", dimensions=256)
    assert kind_of_all({"v": vector}) == "embed"


def test_a_choice_becomes_two_columns_of_the_rows() -> None:
    assert names_of("difficulty", "choice") == ("difficulty", "difficulty_probability")
    assert names_of("r", "reward") == ("r",)


def test_kinds_that_need_different_engines_are_refused_in_one_config() -> None:
    assert refused({"difficulty": QUESTION, "v": {"embed": "instruction"}}) == [
        "columns.v.embed: got 'instruction', must be left out beside difficulty, which is a choice: each "
        "kind needs an engine of its own, so write another config for it"
    ]


@pytest.mark.parametrize(
    ("choice", "at", "must"),
    [
        (["easy"], "choice", "must have 2 to 100 labels"),
        ([str(i) for i in range(101)], "choice", "must have 2 to 100 labels"),
        ("easy", "choice", "must be a list of labels"),
        (["easy", "Easy"], "choice.1", "must be there once, whatever its capital letters"),
        (["easy", ""], "choice.1", "must be a label of one line"),
        (["easy", " hard"], "choice.1", "must be a label of one line"),
        (["easy", "very\nhard"], "choice.1", "must be a label of one line"),
        (["yes", False], "choice.1", "in quotes where YAML reads it as something else"),
        ({"easy": 1, "hard": None}, "choice.easy", "must be text that says what the label means"),
    ],
)
def test_a_wrong_label_is_named_with_its_place(choice: object, at: str, must: str) -> None:
    [line] = refused({"a": QUESTION | {"choice": choice}})
    assert line.startswith(f"columns.a.{at}: got ")
    assert must in line


@pytest.mark.parametrize(
    ("prompt", "must"),
    [
        ("{instructions} Hard?", "{instruction}, {response}, {conversation}, {labels}"),
        ("Hard? {labels}", "a placeholder for the row"),
        (" ", "the text that asks for a label"),
        (7, "put it in quotes"),
    ],
)
def test_a_wrong_prompt_is_refused_with_what_would_be_right(prompt: object, must: str) -> None:
    [line] = refused({"a": QUESTION | {"prompt": prompt}})
    assert line.startswith("columns.a.prompt: got ")
    assert must in line


def test_other_braces_in_a_prompt_are_text() -> None:
    prompt = 'Judge {instruction} as JSON {"x": 1}, {} or {0}.'
    assert taken({"a": QUESTION | {"prompt": prompt}})["a"].prompt == prompt


def test_meanings_of_labels_need_a_place_in_the_prompt() -> None:
    [line] = refused({"a": QUESTION | {"choice": {"easy": "one step", "hard": None}}})
    assert line.endswith("must be a text with {labels}, where the meanings of the labels stand")


def test_a_name_that_rows_have_already_is_refused() -> None:
    assert refused({"instruction": QUESTION}) == [
        "columns.instruction: got 'instruction', must have another name: a column of the rows has this one"
    ]
    assert refused({"a": QUESTION, "a_probability": QUESTION}) == [
        "columns.a_probability: got 'a_probability', must have another name: the column a has this one"
    ]
    # SQL does not tell names apart by case.
    first, second, third = refused({"Label": QUESTION, "label": QUESTION, "ROW_ID": QUESTION})
    assert first == "columns.label: got 'label', must have another name: the column Label has this one"
    assert "got 'label_probability'" in second
    assert third == (
        "columns.ROW_ID: got 'ROW_ID', must have another name: a column of the rows has this one"
    )
    [line] = refused({"1st": QUESTION})
    assert line.startswith("columns: got '1st', must be a name of letters, digits and underscores")


def test_what_is_no_column_is_refused_with_the_kinds_there_are() -> None:
    for wrong in (None, "choice", {}, {"reward": "response", "embed": "response"}, {"prompt": "x"}):
        [line] = refused({"a": wrong})
        assert line.startswith("columns.a: got ")
        assert line.endswith("must be a mapping with one of the keys choice, reward, embed")
    for nothing in (None, {}, []):
        [line] = refused(nothing)
        assert "must be a mapping of names to columns" in line


def test_an_unknown_key_of_a_column_is_told_with_what_is_near() -> None:
    assert refused({"a": QUESTION | {"promt": "x"}}) == [
        "columns.a.promt: unknown key; did you mean columns.a.prompt?"
    ]
    [line] = refused({"v": {"embed": "instruction", "zzz": 1}})
    assert line.startswith("columns.v.zzz: unknown key; the keys of columns.v are ")
    assert "dimensions" in line


def test_every_problem_of_a_section_is_told_at_once() -> None:
    lines = refused({"a": QUESTION | {"prompt": "{x}"}, "v": {"choice": ["a"], "prompt": "{response}"}})
    assert len(lines) == 2


def test_the_ready_configs_ask_what_their_names_say() -> None:
    names = {}
    for path in READY:
        columns = taken(yaml.safe_load(path.read_text(encoding="utf-8"))["columns"])
        assert kind_of_all(columns) == "choice", path
        names[path.stem] = {name: len(column.choice) for name, column in columns.items()}
    assert names == {
        "score-category": {"task_category": 12},
        "score-difficulty": {"difficulty": 5},
        "score-language": {"language": 31},
        "score-quality": {"input_quality": 5},
        "score-safety": {"safety": 8},
    }


def test_no_column_takes_the_name_of_a_column_that_rows_have() -> None:
    assert set(COLUMNS) <= ROW_COLUMNS
