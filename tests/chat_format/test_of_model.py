"""Models with broken or odd files: a format and a warning that names the file, or one message that does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.chat_format.describe import make_template
from magpie_ray.errors import ConfigError, FormatError, ModelError
from magpie_ray.model.resolve import resolve_model
from magpie_ray.model.size import read_model_size
from magpie_ray.planning.plan import make_plan
from tests.support.builds import model_folder
from tests.support.configs import config

LLAMA_LIKE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
PRE_QUERY = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
OTHER = LLAMA_LIKE.replace("\n\n", "\n")
OTHER_PRE_QUERY = PRE_QUERY.replace("\n\n", "\n")

# Contents of a JSON file, and what is wrong with each.
NO_JSON = {
    "cut": (b'{"chat_template": ', r"is not valid JSON \(.+\)"),
    "empty": (b"", r"is not valid JSON \(.+\)"),
    "with a mark of byte order": (b"\xef\xbb\xbf{}", r"is not valid JSON \(Unexpected UTF-8 BOM.+\)"),
    "in UTF-16": ("{}".encode("utf-16"), r"is not UTF-8 \(.+\)"),
    "in Latin-1": ('{"chat_template": "é"}'.encode("latin-1"), r"is not UTF-8 \(.+\)"),
    "nested without end": (b"[" * 100_000, r"is not valid JSON \(.+\)"),
    "a folder": (None, r"can't be read \(Is a directory\)"),
}
NO_OBJECT = {
    "a list": (b"[1]", "holds a list, must hold an object"),
    "null": (b"null", "holds null, must hold an object"),
    "a number": (b"7", "holds a number, must hold an object"),
    "a text": (b'"x"', "holds a text, must hold an object"),
    "a truth": (b"true", "holds true or false, must hold an object"),
}
BROKEN = NO_JSON | NO_OBJECT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(model_folder(tmp_path / "model", LLAMA_LIKE))


def put(path: Path, content: bytes | None) -> None:
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)


def each(cases: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("case", cases.values(), ids=cases)


def each_in(cases: dict[str, Any], file: str, *others: str) -> Any:
    """All cases in the first file, one of them in each of the others."""
    found = {f"{file} {name}": (file, case) for name, case in cases.items()}
    found |= {f"{other} cut": (other, NO_JSON["cut"]) for other in others}
    return pytest.mark.parametrize(("file", "case"), found.values(), ids=found)


def planned(folder: Path, tmp_path: Path, **model: Any) -> dict[str, Any]:
    output = {"path": str(tmp_path / "out")}
    return make_plan(config(model={"name": str(folder), **model}, output=output))


@each_in(BROKEN, "chat_template.json", "processor_config.json", "preprocessor_config.json")
def test_a_broken_file_that_is_not_needed_is_named_in_a_warning(
    folder: Path, file: str, case: tuple[bytes | None, str]
) -> None:
    content, problem = case
    put(folder / file, content)
    found = make_template(str(folder))
    assert found["pre_query"] == PRE_QUERY
    [warning] = found["warnings"]
    assert re.fullmatch(rf"{file} {problem}: left out", warning, re.DOTALL)


@each(NO_JSON)
def test_a_generation_config_that_is_no_json_is_done_without_as_vllm_does(
    folder: Path, tmp_path: Path, case: tuple[bytes | None, str]
) -> None:
    put(folder / "generation_config.json", case[0])
    found = make_template(str(folder))
    assert found["assistant_stop_token_ids"] == [4]  # the tokenizer's own
    for warnings in (found["warnings"], planned(folder, tmp_path)["warnings"]):
        assert any(warning.startswith("generation_config.json ") for warning in warnings)


@pytest.mark.parametrize("value", ['"x"', "[4, null]", "[4, 0.5]", "true", "-1", "1099511627776", "{}"])
def test_an_end_that_is_no_token_id_is_left_out_as_vllm_runs_with_it(folder: Path, value: str) -> None:
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": {value}}}')
    found = make_template(str(folder))
    assert found["assistant_stop_token_ids"] == [4]
    [warning] = found["warnings"]
    assert warning.startswith("generation_config.json: eos_token_id is ")


FRACTION = {"a fraction": (b'{"eos_token_id": 4.5}', "eos_token_id is 4.5, must be a token id or a list")}


@each(NO_OBJECT | FRACTION)
def test_a_generation_config_that_no_engine_starts_with_is_refused(
    folder: Path, tmp_path: Path, case: tuple[bytes, str]
) -> None:
    put(folder / "generation_config.json", case[0])
    for call in (lambda: make_template(str(folder)), lambda: planned(folder, tmp_path)):
        with pytest.raises(
            ModelError, match=rf"generation_config\.json:? {case[1]}.*Mend the file or remove"
        ):
            call()


@each_in(NO_JSON, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")
def test_a_broken_file_of_the_tokenizer_is_named_and_the_remedy_too(
    folder: Path, file: str, case: tuple[bytes | None, str]
) -> None:
    content, problem = case
    put(folder / file, content)
    with pytest.raises(ModelError, match=rf"can't be loaded: {file} {problem}\. Mend the folder"):
        make_template(str(folder))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", b'{"added_tokens": [], "model": {"type": "BPE"}}'),
        ("tokenizer.json", b'{"added_tokens": 3}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": 3}}'),
        ("added_tokens.json", b'{"a": "b"}'),
        ("tokenizer_config.json", b'{"model_max_length": "long"}'),
        ("tokenizer_config.json", b'{"eos_token": 7}'),
        ("config.json", b'{"model_type": "llama", "max_position_embeddings": "many"}'),
        ("additional_chat_templates/x.jinja", b"\xff"),
    ],
)
def test_a_tokenizer_of_another_shape_is_one_message(folder: Path, file: str, content: bytes) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(content)
    with pytest.raises(ModelError, match=r"can't be loaded: .+Mend the folder") as caught:
        make_template(str(folder))
    assert len(str(caught.value).splitlines()) == 1


def test_ends_that_the_model_does_not_have_are_left_out(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [4, 1998, 1999, 123456]}')
    found = make_template(str(folder))
    assert found["user_stop_token_ids"] == found["assistant_stop_token_ids"] == [4, 1998]
    assert any("the ids 1999, 123456, which the model does not have" in text for text in found["warnings"])


def test_a_format_of_tokens_that_the_model_does_not_have_is_refused(folder: Path) -> None:
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | {"vocab_size": 3}))
    with pytest.raises(FormatError, match=r"has the token 'user', id 1996, .* only the ids below 3 "):
        make_template(str(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md"])
def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError, match=r"can't be loaded: it has no tokenizer \(tokenizer\.json, "):
        make_template(str(tmp_path))


@each_in(BROKEN, "chat_template.json", "processor_config.json")
def test_a_broken_file_that_may_hold_the_only_template_is_named(
    folder: Path, tmp_path: Path, file: str, case: tuple[bytes | None, str]
) -> None:
    (folder / "chat_template.jinja").unlink()
    put(folder / file, case[0])
    for call in (lambda: make_template(str(folder)), lambda: planned(folder, tmp_path)):
        with pytest.raises(
            FormatError, match=rf"no chat template.*broken files of the model: {file} {case[1]}"
        ):
            call()


def test_a_literal_pre_query_needs_no_template_so_a_broken_one_is_a_warning(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "chat_template.jinja").unlink()
    put(folder / "chat_template.json", b"{")
    made = config(
        model={"name": str(folder), "pre_query_template": "Ask: "},
        only_instruction=True,
        output={"path": str(tmp_path / "out")},
    )
    assert any(warning.startswith("chat_template.json ") for warning in make_plan(made)["warnings"])


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{{ messages[0].nowhere.nothing }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for m in messages %}",
        "no message at all",
        "{{ messages[0].content * 2 }}",
    ],
)
def test_a_template_that_fails_is_one_message(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(FormatError, match=r"^The chat template .*Check the template, which begins with"):
        make_template(str(folder))


def test_a_special_token_without_an_id_is_none(folder: Path) -> None:
    (folder / "special_tokens_map.json").write_text('{"cls_token": ""}')
    assert make_template(str(folder))["pre_query"] == PRE_QUERY


@pytest.mark.parametrize("value", [3, True, ["a"], {"default": 3}])
def test_a_template_that_is_no_text_is_refused(folder: Path, value: object) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(FormatError, match="chat template is no text but"):
        make_template(str(folder))


def test_a_mark_of_byte_order_in_front_of_the_template_is_a_warning(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("\ufeff" + LLAMA_LIKE, encoding="utf-8")
    assert any("byte-order mark" in warning for warning in make_template(str(folder))["warnings"])


@pytest.mark.parametrize("as_list", [False, True])
def test_a_template_in_the_processors_config_is_found_before_the_older_file(
    folder: Path, as_list: bool
) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": LLAMA_LIKE}))
    assert make_template(str(folder))["pre_query"] == PRE_QUERY
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "LlavaProcessor"}))
    assert make_template(str(folder))["pre_query"] == PRE_QUERY
    named: Any = [{"name": "default", "template": OTHER}] if as_list else OTHER
    (folder / "processor_config.json").write_text(json.dumps({"chat_template": named}))
    assert make_template(str(folder))["pre_query"] == OTHER_PRE_QUERY


def several(folder: Path, **templates: str) -> None:
    """Put the templates where transformers keeps several."""
    (folder / "chat_template.jinja").unlink()
    (folder / "additional_chat_templates").mkdir()
    for name, template in templates.items():
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(template)


def test_of_several_templates_one_is_named(folder: Path, tmp_path: Path) -> None:
    several(folder, rag=OTHER, tool_use=LLAMA_LIKE)
    with pytest.raises(FormatError, match=r"'(rag|tool_use)', .* model\.chat_template_name"):
        planned(folder, tmp_path)
    assert make_template(str(folder), template_name="rag")["pre_query"] == OTHER_PRE_QUERY
    assert planned(folder, tmp_path, chat_template_name="tool_use")["first_prompt"] == PRE_QUERY
    with pytest.raises(
        ConfigError, match=r"model\.chat_template_name: got 'x', but the model has '(rag|tool_)"
    ):
        planned(folder, tmp_path, chat_template_name="x")


def test_another_template_than_the_default_may_be_named(folder: Path) -> None:
    several(folder, rag=OTHER)
    (folder / "chat_template.jinja").write_text(LLAMA_LIKE)
    assert make_template(str(folder))["pre_query"] == PRE_QUERY
    assert make_template(str(folder), template_name="default")["pre_query"] == PRE_QUERY
    assert make_template(str(folder), template_name="rag")["pre_query"] == OTHER_PRE_QUERY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"config\.json is not valid JSON"),
        (b"[]", r"config\.json holds a list"),
        (b'{"text_config": [1]}', "does not say how large"),
        (b'{"num_hidden_layers": 2, "num_attention_heads": 0}', "does not say how large"),
        (b'{"num_hidden_layers": "two"}', "does not say how large"),
        (b'{"quantization_config": 3, "num_hidden_layers": 2}', "does not say how large"),
    ],
)
def test_the_size_by_a_broken_config_is_one_message(folder: Path, content: bytes, message: str) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_model_size(resolve_model(str(folder), None), dtype="auto", quantization=None, cache_dtype="auto")


@pytest.mark.parametrize("content", [b"{", b"[]", b"7"])
def test_the_size_by_a_broken_index_is_one_message(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json (is not|holds)"):
        read_model_size(resolve_model(str(folder), None), dtype="auto", quantization=None, cache_dtype="auto")
