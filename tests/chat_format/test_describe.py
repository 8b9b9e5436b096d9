"""What `template` says, as plain fields and for people."""

import json
from pathlib import Path

import pytest

from magpie_ray.chat_format.describe import make_template
from magpie_ray.cli.views import results
from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from magpie_ray.errors import FormatError
from tests.support.builds import GEMMA_LIKE, model_folder

THINKS = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
    "{{ '<think>\n' if enable_thinking else '<think></think>' }}{% endif %}"
)
SPACED = (
    "{{ bos_token }}{% for m in messages %}{{ m.role | upper }}: {{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


def test_a_template_is_shown_with_a_system_prompt() -> None:
    found = make_template("builtin:tiny-chat", system="Be kind.")
    assert "Be kind." in found["pre_query_with_system"]
    default = make_template("builtin:tiny-chat")
    assert MULTI_TURN_PROMPT in default["pre_query_with_system"]


def test_a_template_without_a_system_role_says_so(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "gemma-like", GEMMA_LIKE)
    found = make_template(folder, system="Be kind.")
    assert (found["pre_query_with_system"], found["system_role"]) == (None, "rejected")
    assert any("system" in warning for warning in found["warnings"])
    assert make_template(folder)["pre_query_with_system"] is None
    assert "with system       (takes none)" in results.template_text(found)


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "base", "")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    with pytest.raises(FormatError, match="chat template"):
        make_template(folder)


def test_thinking_is_shown_on_and_off_and_as_asked_for(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "thinks", THINKS)
    found = make_template(folder)
    assert (found["thinking"], found["can_think"]) == (None, True)
    assert found["thinking_on"]["user_to_assistant"] == f"{HEADER}<think>\n"
    assert found["thinking_off"]["user_to_assistant"] == f"{HEADER}<think></think>"
    assert found["thinking_on"]["reasoning"]["opened"] is True
    assert make_template(folder, thinking=True)["user_to_assistant"] == f"{HEADER}<think>\n"
    assert make_template(folder, thinking=False)["user_to_assistant"] == f"{HEADER}<think></think>"
    shown = results.template_text(found)
    assert "thinking on       <|eot_id|><|start_header_id|>assistant<|end_header_id|>⏎⏎<think>⏎\n" in shown
    assert "reasoning       opened by that text, ends with </think>, is dropped from history" in shown
    with pytest.raises(FormatError, match="no place for reasoning"):
        make_template("builtin:tiny-chat", thinking=True)
    assert "not in this template" in results.template_text(make_template("builtin:tiny-chat"))


def test_fields_are_json_and_stops_are_shown_with_their_tokens_and_spaces_as_marks(tmp_path: Path) -> None:
    found = make_template(model_folder(tmp_path / "spaced", SPACED))
    assert json.loads(json.dumps(found)) == found
    shown = results.template_text(found)
    [stop] = [i for i, token in found["tokens"].items() if token == "<|eot_id|>"]
    assert f"assistant stops   {stop} <|eot_id|>" in shown
    assert "pre-query         <|begin_of_text|>USER:␣\n" in shown


def test_a_format_of_the_users_own_is_shown_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shown_format.py").write_text(
        "from magpie_ray import derive\ndef ask(t): return derive(t, pre_query_template='Ask: ')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = make_template("builtin:tiny-chat", own_format="shown_format:ask")
    assert (found["pre_query"], found["pre_query_with_system"]) == ("Ask: ", None)
