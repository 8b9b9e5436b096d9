"""The requests and values of each kind of column, with the bundled model's tokenizer."""

import math

import numpy as np
import pytest

from magpie_ray.config.scoring import ChoiceColumn, EmbedColumn, RewardColumn, ScoreColumn
from magpie_ray.errors import ConfigError, EngineError, FormatError
from magpie_ray.scoring.columns import Column, make_columns
from magpie_ray.scoring.rows import texts_of
from tests.support.scoring import PlainRow, dialogue, tiny_format, tiny_tokenizer

TOKENIZER = tiny_tokenizer().tokenizer
LABELS = ["red", "green", "dark green"]


def made(column: ScoreColumn, *, several: bool = False) -> Column:
    [only] = make_columns({"it": column}, tokenizer=TOKENIZER, form=tiny_format(), several=several)
    return only


def choice(prompt: str = "What colour? {instruction}") -> Column:
    return made(ChoiceColumn.model_validate({"choice": LABELS, "prompt": prompt}))


def templated(*texts: str, answer: bool = False) -> list[int]:
    messages = [
        {"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)
    ]
    ids = TOKENIZER.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=answer, return_dict=False
    )
    return list(ids)


def test_a_question_is_asked_in_the_models_own_template() -> None:
    row = dialogue(0, "a frog")
    [inquiry] = choice().inquiries(row, texts_of(row))
    request = inquiry.request()
    assert request is not None
    prompt, asked = request
    assert prompt == templated("What colour? a frog", answer=True)
    assert len(asked) == len(LABELS)
    for label, token_id in zip(LABELS, asked, strict=True):
        assert [*prompt, token_id] == templated("What colour? a frog", label)[: len(prompt) + 1]


def test_a_choice_becomes_a_label_and_its_probability() -> None:
    column, row = choice(), dialogue(0, "a frog")
    assert column.names == ("it", "it_probability")
    [inquiry] = column.inquiries(row, texts_of(row))
    inquiry.answer([math.log(0.02), math.log(0.06), math.log(0.01)])
    assert inquiry.request() is None
    values = column.values([inquiry])
    assert values["it"] == "green"
    assert values["it_probability"] == pytest.approx(6 / 9)


def test_an_end_of_message_in_a_row_is_text_and_ends_nothing() -> None:
    row = dialogue(0, "a frog<|eot_id|>")
    [inquiry] = choice().inquiries(row, texts_of(row))
    request = inquiry.request()
    assert request is not None
    end = TOKENIZER.convert_tokens_to_ids("<|eot_id|>")
    assert request[0].count(end) == templated("What colour? a frog", answer=True).count(end)


def test_a_reward_is_asked_about_the_dialogue_as_the_template_writes_it() -> None:
    column, row = made(RewardColumn(reward="response")), dialogue(0, "Add 1 and 2.", "3", "And 3?", "6")
    [inquiry] = column.inquiries(row, texts_of(row))
    assert inquiry.request() == (templated("Add 1 and 2.", "3", "And 3?", "6"), ())
    inquiry.answer([-2.5])
    assert inquiry.request() is None
    assert column.values([inquiry]) == {"it": -2.5}


def test_a_system_prompt_is_judged_along_only_where_the_column_says_so() -> None:
    row = PlainRow(0, (("user", "Add."), ("assistant", "3")), system_prompt="Be brief.")
    prompts = []
    for with_system in (False, True):
        column = made(RewardColumn(reward="response", system_prompt=with_system))
        [inquiry] = column.inquiries(row, texts_of(row))
        request = inquiry.request()
        assert request is not None
        prompts.append(TOKENIZER.decode(request[0]))
    assert ["Be brief." in prompt for prompt in prompts] == [False, True]


def test_a_row_with_several_responses_has_a_list_of_rewards() -> None:
    column = made(RewardColumn(reward="response"), several=True)
    row = dialogue(0, "Add 1 and 2.", responses=("3", "4"))
    inquiries = column.inquiries(row, texts_of(row))
    assert [inquiry.request() for inquiry in inquiries] == [
        (templated("Add 1 and 2.", text), ()) for text in ("3", "4")
    ]
    for inquiry, logit in zip(inquiries, (1.5, -1.0), strict=True):
        inquiry.answer([logit])
    assert column.values(inquiries) == {"it": [1.5, -1.0]}


def test_a_dialogue_without_an_answer_has_no_reward() -> None:
    for several, row in ((False, dialogue(0, "Add.")), (False, PlainRow(0)), (True, dialogue(0, "Add."))):
        assert not made(RewardColumn(reward="response"), several=several).inquiries(row, texts_of(row))


def test_an_embedding_has_length_one_also_where_it_is_cut() -> None:
    row = dialogue(0, "Add 1 and 2.")
    for dimensions, expected in ((None, [3 / 13, 4 / 13, 12 / 13]), (2, [3 / 5, 4 / 5])):
        column = made(EmbedColumn(embed="instruction", dimensions=dimensions))
        [inquiry] = column.inquiries(row, texts_of(row))
        assert inquiry.request() == (TOKENIZER("Add 1 and 2.")["input_ids"], ())
        inquiry.answer([3.0, 4.0, 12.0])
        vector = column.values([inquiry])["it"]
        assert vector.dtype == np.float32
        assert vector.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_broken_models_numbers_are_an_error_and_no_values(number: float) -> None:
    row = dialogue(0, "Add 1 and 2.", "3")
    [inquiry] = made(RewardColumn(reward="response")).inquiries(row, texts_of(row))
    with pytest.raises(EngineError, match="numbers that are none"):
        inquiry.answer([number])


def test_a_model_that_does_not_serve_a_column_is_refused_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"columns\.it\.reward: the model has 5 labels"):
        made(RewardColumn(reward="response")).check(5)
    with pytest.raises(ConfigError, match=r"columns\.it\.dimensions: got 512, but .* have 384 numbers"):
        made(EmbedColumn(embed="instruction", dimensions=512)).check(384)
    made(EmbedColumn(embed="instruction", dimensions=384)).check(384)
    with pytest.raises(ConfigError, match=r"columns\.it: names the response of a row, and .* have several"):
        made(EmbedColumn(embed="response"), several=True)


def test_a_reward_model_without_a_chat_template_is_refused() -> None:
    class NoTemplate:
        chat_template = None

        def __getattr__(self, name: str) -> object:
            return getattr(TOKENIZER, name)

        def __call__(self, *args: object, **kwargs: object) -> object:
            return TOKENIZER(*args, **kwargs)

        def apply_chat_template(self, *_: object, **__: object) -> str:
            raise ValueError("no chat template")

    with pytest.raises(FormatError, match="template"):
        make_columns({"it": RewardColumn(reward="response")}, tokenizer=NoTemplate())
