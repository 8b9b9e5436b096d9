"""mistral-common's tokenizers derive like any other: the ids of its own encoding of a dialogue."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.chat_format import ChatFormat, derive
from magpie_ray.errors import FormatError
from magpie_ray.model.tokenizer import load_tokenizer
from tests.chat_format.test_derivation import LONGER, dialogue, ids_of

mistral_common = pytest.importorskip("mistral_common")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # its own, of what it will rename
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that brings a tekken.json and no other tokenizer."""
    path = tmp_path_factory.mktemp("tekken")
    data = Path(mistral_common.__file__).parent / "data"
    shutil.copy(data / "tekken_240911.json", path / "tekken.json")
    (path / "config.json").write_text('{"model_type": "mistral"}')
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return load_tokenizer(str(folder)).tokenizer


@pytest.fixture(scope="module")
def form(tokenizer: Any) -> ChatFormat:
    return derive(tokenizer, system_prompts=["Be brief."])


def test_the_texts_are_those_of_mistral_common(form: ChatFormat) -> None:
    assert (form.pre_query, form.user_to_assistant, form.next_user) == ("<s>[INST]", "[/INST]", "</s>[INST]")
    assert form.system_role == "folded_into_user"
    assert form.system_prefixes[0].last_user == "</s>[INST]Be brief.\n\n"
    assert form.multi_turn_problem is None


def test_both_roles_are_ended_by_control_tokens(tokenizer: Any, form: ChatFormat) -> None:
    end, eos = tokenizer.convert_tokens_to_ids(["[/INST]", "</s>"])
    assert form.user_stop_token_ids == (end, eos)
    assert form.assistant_stop_token_ids == (eos,)
    assert form.stop_strings == ()
    assert {end, eos, tokenizer.bos_token_id} <= set(form.special_token_ids)


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_prompts_have_the_ids_that_mistral_common_gives(
    tokenizer: Any, form: ChatFormat, count: int, system: str | None
) -> None:
    contents = LONGER[:count]
    prompt = form.prompt(form.prefix(system), ids_of(tokenizer, form, contents, system))
    asked = dialogue(contents, system)
    assert prompt == tokenizer.apply_chat_template(asked, tokenize=True, add_generation_prompt=True)


def test_a_text_survives_its_ids_and_controls_stay_visible(tokenizer: Any) -> None:
    text = "[INST]Why is\n\tthe sky 青い?[/INST]  </s>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.batch_decode([[3], [4]], skip_special_tokens=False) == ["[INST]", "[/INST]"]


def test_thinking_is_refused_where_there_is_no_place_for_it(tokenizer: Any) -> None:
    with pytest.raises(FormatError, match="no place for reasoning"):
        derive(tokenizer, thinking=True)
