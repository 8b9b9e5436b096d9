"""mistral-common's tokenizers derive like any other: the ids of its own encoding of a dialogue."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.chat_format import ChatFormat, derive
from magpie_ray.errors import FormatError
from magpie_ray.model.tokenizer import load_tokenizer
from tests.chat_format.test_derivation import LONGER, check_spelled_markers, dialogue, ids_of

mistral_common = pytest.importorskip("mistral_common")
pytestmark = pytest.mark.filterwarnings("ignore")  # its own, of what it will rename

DATA = Path(mistral_common.__file__).parent / "data"
CONTROLS = ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", "[ARGS]", "[CALL_ID]")
THINK, SETTINGS = ("[THINK]", "[/THINK]"), ("[MODEL_SETTINGS]", "[/MODEL_SETTINGS]")


@cache
def published() -> dict[str, Any]:
    tekken: dict[str, Any] = json.loads((DATA / "tekken_240911.json").read_text(encoding="utf-8"))
    return tekken


def tekken_folder(
    folder: Path,
    version: str,
    *,
    controls: Sequence[str] = (),
    efforts: Sequence[str] = (),
    default: str = "",
) -> str:
    """A model with a tekken.json of this version, with the first words of a published one.

    controls: tokens beyond those of all versions. efforts: values of reasoning_effort.
    """
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    old = [str(token["token_str"]) for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    names = list(dict.fromkeys([*old, *CONTROLS, *controls]))
    config = published()["config"] | {"version": version, "default_vocab_size": 2500}
    tekken = {
        "config": config,
        "vocab": published()["vocab"][:1500],
        "special_tokens": [
            {"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(names)
        ],
    }
    if efforts:
        values = {"type": "enum", "accepts_none": True, "default": default, "values": list(efforts)}
        tekken["model_settings_builder"] = {"reasoning_effort": values}
    folder.mkdir()
    (folder / "tekken.json").write_text(json.dumps(tekken), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "mistral"}')
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that brings a tekken.json and no other tokenizer."""
    return tekken_folder(tmp_path_factory.mktemp("models") / "v3", "v3")


@pytest.fixture(scope="module")
def tokenizer(folder: str) -> Any:
    return load_tokenizer(folder).tokenizer


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


def test_thinking_is_refused_where_there_is_no_place_for_it(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no place for reasoning"):
        derive(tokenizer, thinking=True)
    for version, controls in (("v11", THINK), ("v13", ())):
        other = load_tokenizer(tekken_folder(tmp_path / version, version, controls=controls)).tokenizer
        assert not derive(other).can_think


def settings(effort: str) -> str:
    return f'<s>[MODEL_SETTINGS]{{"reasoning_effort": "{effort}"}}[/MODEL_SETTINGS][INST]'


@pytest.mark.parametrize(
    ("efforts", "default", "on"),
    [
        (("none", "high"), "high", "high"),
        (("none", "high"), "none", "high"),
        (("none", "low", "medium"), "low", "medium"),
        (("none", "low"), "none", "low"),
    ],
)
def test_the_effort_of_reasoning_is_turned_on_and_off(
    tmp_path: Path, efforts: Sequence[str], default: str, on: str
) -> None:
    path = tekken_folder(
        tmp_path / "v15", "v15", controls=(*THINK, *SETTINGS), efforts=efforts, default=default
    )
    tokenizer = load_tokenizer(path).tokenizer
    for thinking, effort in ((None, default), (True, on), (False, "none")):
        form = derive(tokenizer, thinking=thinking, system_prompts=["Be brief."])
        assert form.pre_query == settings(effort)
        assert form.user_to_assistant == "[/INST]"
        assert (form.can_think, form.warnings) == (True, ())
        assert (form.reasoning is not None) == (thinking is True)
        for system, count in ((None, 1), (None, 5), ("Be brief.", 3)):
            contents = LONGER[:count]
            prompt = form.prompt(form.prefix(system), ids_of(tokenizer, form, contents, system))
            assert prompt == tokenizer.apply_chat_template(
                dialogue(contents, system), tokenize=True, add_generation_prompt=True, reasoning_effort=effort
            )
        assert form.reasoning is None or form.reasoning.split("[THINK]Hm.[/THINK]Yes.") == ("Hm.", "Yes.")


def test_an_effort_of_the_users_own_reaches_the_rules(tmp_path: Path) -> None:
    path = tekken_folder(
        tmp_path / "v15", "v15", controls=(*THINK, *SETTINGS), efforts=("none", "low", "high"), default="high"
    )
    tokenizer = load_tokenizer(path).tokenizer
    form = derive(tokenizer, thinking=True, template_variables={"reasoning_effort": "low"})
    assert form.pre_query == settings("low")
    for value in ("medium", "colossal"):
        with pytest.raises(FormatError, match="reasoning_effort"):
            derive(tokenizer, template_variables={"reasoning_effort": value})


def test_reasoning_without_a_switch_is_asked_for_by_the_system_prompt(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tekken_folder(tmp_path / "v13", "v13", controls=THINK)).tokenizer
    on, off = (derive(tokenizer, thinking=thinking) for thinking in (True, False))
    assert (on.pre_query, on.user_to_assistant) == (off.pre_query, off.user_to_assistant)
    assert on.reasoning is not None
    assert (on.reasoning.opening, on.reasoning.closing) == THINK
    assert any("system prompt" in warning for warning in on.warnings)
    assert off.warnings == ()
    assert "[THINK]" in off.role_markers  # an answer that reasons all the same is rejected


def test_reasoning_that_cannot_be_turned_off_is_closed_at_once(tmp_path: Path) -> None:
    path = tekken_folder(
        tmp_path / "v15", "v15", controls=(*THINK, *SETTINGS), efforts=("low", "high"), default="low"
    )
    form = derive(load_tokenizer(path).tokenizer, thinking=False)
    assert form.user_to_assistant == "[/INST][THINK][/THINK]"
    assert any("no switch for thinking" in warning for warning in form.warnings)


def test_a_control_token_that_a_message_spells_out_is_text(tokenizer: Any, form: ChatFormat) -> None:
    check_spelled_markers(tokenizer, form)
