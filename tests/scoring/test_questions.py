"""A row as the text that asks for a label."""

from magpie_ray.config.scoring import ChoiceColumn
from magpie_ray.scoring.questions import Question
from magpie_ray.scoring.rows import Texts, texts_of
from tests.support.scoring import PlainRow, dialogue


def asked(prompt: str, texts: Texts, choice: object = ("easy", "hard")) -> str | None:
    column = ChoiceColumn.model_validate(
        {"choice": list(choice) if isinstance(choice, tuple) else choice, "prompt": prompt}
    )
    return Question.of("difficulty", column).text(texts)


def test_a_rows_texts_stand_where_the_prompt_names_them() -> None:
    texts = texts_of(dialogue(0, "Add 1 and 2.", "3"))
    assert asked("Q: {instruction}\nA: {response}\nHard?\n", texts) == "Q: Add 1 and 2.\nA: 3\nHard?"


def test_the_labels_stand_one_a_line_with_what_they_mean() -> None:
    choice = {"easy": "one\n step", "hard": None}
    assert asked("{labels}\n{instruction}", {"instruction": "x"}, choice) == "- easy: one step\n- hard\nx"


def test_what_looks_like_a_placeholder_in_a_row_is_text() -> None:
    texts: Texts = {"instruction": "Write {labels} and {response} \\1", "response": "no"}
    assert asked("{instruction}", texts) == texts["instruction"]


def test_a_row_without_a_text_that_the_prompt_names_is_not_asked_about() -> None:
    assert asked("{instruction} {response}", texts_of(dialogue(0, "Add."))) is None
    assert asked("{instruction}", texts_of(PlainRow(row_id=0))) is None
    assert asked("{instruction}", texts_of(dialogue(0, " \n"))) is None


def test_of_several_turns_the_first_instruction_and_the_last_answer_are_named() -> None:
    row = PlainRow(
        row_id=0,
        messages=(("system", "s"), ("user", " a "), ("assistant", "b"), ("user", "c"), ("assistant", "d\n")),
    )
    assert texts_of(row) == {
        "instruction": "a",
        "response": "d",
        "conversation": "User: a\n\nAssistant: b\n\nUser: c\n\nAssistant: d",
    }
