"""A user's own chat format: found by its path, checked, and in the build's identity."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from magpie_ray.errors import ConfigError, FormatError
from magpie_ray.preflight import build_spec
from magpie_ray.preflight.build_spec import BuildSpec
from tests.support.builds import config_of

MODULE = """
from magpie_ray import derive

def whole(tokenizer, **build):
    return derive(tokenizer, template_variables={"style": "plain"}, **build)

def short(tokenizer):
    return derive(tokenizer, pre_query_template="<|start_header_id|>user<|end_header_id|>")

def thinks_not(tokenizer, system_prompts=()):
    return derive(tokenizer, system_prompts=system_prompts)

def broken(tokenizer):
    return tokenizer.nothing

def ends(tokenizer):
    raise SystemExit(0)

def refused(tokenizer):
    return derive(tokenizer, thinking=True)

none = 7

def text(tokenizer):
    return "<|user|>"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_formats.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("own_formats", None)


def resolve_build(name: str, **keys: object) -> BuildSpec:
    return build_spec.resolve_build(config_of(model={"chat_format": f"own_formats:{name}"}, **keys))


def test_a_format_of_the_users_own_stands_in_place_of_the_derived_one() -> None:
    assert resolve_build("short").chat_format.pre_query == "<|start_header_id|>user<|end_header_id|>"
    build_spec = resolve_build("whole", system_prompt="Be kind.", n_turns=2)
    assert "Be kind." in build_spec.chat_format.prefix_text("Be kind.")


def test_it_is_in_the_identity_by_its_path_and_by_what_it_is() -> None:
    own, derived = resolve_build("whole").identity(), build_spec.resolve_build(config_of()).identity()
    differing = {key for key in own.keys() | derived.keys() if own.get(key) != derived.get(key)}
    assert differing == {"model.chat_format"}
    assert own["model.chat_format"] == "own_formats:whole"
    assert resolve_build("short").identity()["chat_format.pre_query"] != own["chat_format.pre_query"]


def test_system_prompts_that_it_does_not_take_are_refused_and_the_default_one_is_left_out() -> None:
    with pytest.raises(ConfigError, match=r"own_formats:short gave .* without the system prompt 'Be kind\.'"):
        resolve_build("short", system_prompt="Be kind.")
    build_spec = resolve_build("short", n_turns=2)
    assert build_spec.prompts == ()
    assert any("left out" in warning for warning in build_spec.warnings)
    assert [prompt.text for prompt in resolve_build("thinks_not", n_turns=2).prompts] == [MULTI_TURN_PROMPT]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"own_formats:broken failed: AttributeError"),
        ("ends", r"own_formats:ends failed: SystemExit: 0"),
        ("text", r"gave '<\|user\|>', must give a magpie_ray\.ChatFormat"),
        ("none", r"which is 7, must be a function"),
        ("nothing", r"has no nothing"),
    ],
)
def test_a_function_that_is_none_or_gives_none_is_told(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.chat_format: .*{message}"):
        resolve_build(name)


def test_what_deriving_refuses_is_told_in_its_own_words() -> None:
    with pytest.raises(FormatError, match="no place for reasoning"):
        resolve_build("refused")


def test_a_format_without_reasoning_is_refused_with_thinking() -> None:
    config = config_of(model={"chat_format": "own_formats:thinks_not", "thinking": True})
    with pytest.raises(ConfigError, match=r"without reasoning, and model\.thinking is true"):
        build_spec.resolve_build(config)


@pytest.mark.slow
def test_a_script_may_name_its_own_function(folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(
        "from magpie_ray import derive, load_config\n"
        "from magpie_ray.preflight.resolve import resolve_build\n"
        "def ask(tokenizer): return derive(tokenizer, pre_query_template='Ask: ')\n"
        "config = load_config(None, ['num_rows=1', 'model.chat_format=__main__:ask'])\n"
        "print(resolve_build(config).chat_format.pre_query)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "Ask: \n"
