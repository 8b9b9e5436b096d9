"""Reading a config: files, overrides, and one clear error for what can't be read."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from magpie_ray.config.loading import load_config
from magpie_ray.config.source import read_overrides
from magpie_ray.errors import ConfigError
from tests.support.configs import overridden


def test_overrides_are_yaml_and_the_last_one_wins(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "# A comment first.\nnum_rows: 3\nsystem_prompt: {code: [Code., 0.7]}\nmodel: {revision: abc}\n"
    )
    made = load_config(
        file,
        [
            "num_rows=7",
            "num_rows=105",
            "sampling.user.temperature=0.9",
            "system_prompt.math=[Do sums., 0.3]",
            "model.revision=null",
            "output.storage_options.anon=true",
            "output.path=s3://bucket/a=b",
        ],
    )
    assert made.num_rows == 105
    assert made.sampling.user.temperature == 0.9
    assert [(prompt.key, prompt.weight) for prompt in made.prompts] == [("code", 0.7), ("math", 0.3)]
    assert made.model.revision is None
    assert made.output.storage_options == {"anon": True}
    assert made.output.path == "s3://bucket/a=b"


@pytest.mark.parametrize(
    "text",
    [
        "You are a teacher. Rules: be kind",
        "Rules:\n- be kind\n- be short",
        "- Be kind",
        "Talk about # signs",
        "*Important*: be kind",
        "& so on",
        "!be kind",
        "| is a pipe",
        "> you",
        "'tis the season",
        '"Be kind" is the rule',
        "one: two: three",
        "? who",
        "@teacher",
        "% of people",
        "`code`",
        "2026-11-30",
        "2026-13-45",
        "key: [not a list",
        "---",
        "a line\n\nand a paragraph",
        "C:\\new",
    ],
)
def test_text_of_an_override_stays_text(text: str) -> None:
    [prompt] = overridden(f"system_prompt={text}").prompts
    assert prompt.text == text


@pytest.mark.parametrize("quoted", ['"12"', "'12'", '  "12" '])
def test_quotes_around_an_override_make_it_text(quoted: str) -> None:
    [prompt] = overridden(f"system_prompt={quoted}").prompts
    assert prompt.text == "12"


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1))
def test_an_override_is_its_own_text_or_a_single_value(text: str) -> None:
    assume(text.strip() and not text.strip().startswith(("[", "{", '"', "'")))
    data = read_overrides([f"key={text}"])
    assert data["key"] == text.strip() or isinstance(data["key"], bool | int | float | None)


def test_an_override_does_not_leak_through_a_yaml_alias(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("num_rows: 3\nsampling:\n  user: &same {temperature: 0.5}\n  assistant: *same\n")
    made = load_config(file, ["sampling.user.temperature=0.9"])
    assert (made.sampling.user.temperature, made.sampling.assistant.temperature) == (0.9, 0.5)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("n_turns", "n_turns: an override is written key=value"),
        ("=3", "is not a key"),
        ("a..b=3", "a..b=...: is not a key"),
        ("n_turns=", "n_turns=: has no value; write n_turns=null"),
        ("seed.x=3", "seed: got {'x': 3}, must be a whole number of at least 0"),
        ("num_rows.x=3", "num_rows.x: can't be set, as num_rows is a single value; set num_rows as a whole"),
        ("n_turns=[1", "n_turns=..., line 1, column 3: is not valid YAML"),
        ("system_prompt=[Teacher] Be kind", "put it in quotes: system_prompt='\"...\"'"),
        (
            "sampling.user.temprature=1",
            "sampling.user.temprature: unknown key; did you mean sampling.user.temperature?",
        ),
        ("temperature=1", "did you mean sampling.user.temperature or sampling.assistant.temperature?"),
    ],
)
def test_a_wrong_override_is_refused_with_its_key_and_a_remedy(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        overridden(override)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; the shortest config is num_rows: 1000"),
        (b"# nothing but a comment\n", "is empty"),
        (b"- num_rows: 1\n", "holds a list; a config is a mapping"),
        (b"num_rows 1\n", "holds a single value"),
        (b"num_rows: 1\nmodel: {name: x\n", ", line 3, column 1: is not valid YAML"),
        (b"num_rows: 1\n\tn_turns: 2\n", ", line 2, column 1: is not valid YAML"),
        (
            b"num_rows: 1\nseed: 2\nnum_rows: 3\n",
            ", line 3, column 1: is not valid YAML: the key 'num_rows' is there",
        ),
        (
            b"num_rows: !!python/object/apply:os.system [ls]\n",
            "could not determine a constructor for the tag",
        ),
        (b"num_rows: !!int x\n", "a value that does not fit its YAML type"),
        (b"num_rows: !!bool x\n", "a value that does not fit its YAML type"),
        (b"num_rows: 2026-13-45\n", "a value that does not fit its YAML type"),
        (b"num_rows: 1\n---\nnum_rows: 2\n", "expected a single document"),
        (b"num_rows: 1\nsystem_prompt: caf\xe9\n", "is not UTF-8 text (byte 30)"),
        (b"num_rows: 1\x00\n", "character 11 can't be in YAML"),
        (b"a: " + b"[" * 1000, "is nested too deeply"),
    ],
)
def test_an_unreadable_file_is_one_clear_error(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith(str(file))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_config_by_its_size_is_not_parsed(tmp_path: Path) -> None:
    file = tmp_path / "rows.yaml"
    file.write_bytes(b"a: b\n" * (1 << 20))
    with pytest.raises(ConfigError, match="has more than 4 MiB; a config is a short YAML file"):
        load_config(file)


def test_a_byte_order_mark_and_merge_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "\ufeffnum_rows: 3\nsampling:\n  user: &same {top_p: 0.5, max_tokens: 7}\n"
        "  assistant: {<<: *same, max_tokens: 8}\n"
    )
    sampling = load_config(file).sampling
    assert (sampling.assistant.top_p, sampling.assistant.max_tokens) == (0.5, 8)


def test_yaml_that_would_run_a_command_runs_nothing(tmp_path: Path) -> None:
    file, sign = tmp_path / "a.yaml", tmp_path / "sign"
    for tag in ("object/apply:os.system", "object/new:subprocess.check_output", "object/apply:eval"):
        file.write_text(f"num_rows: !!python/{tag} ['touch {sign}']\n")
        with pytest.raises(ConfigError, match=f"could not determine a constructor for the tag .*{tag}"):
            load_config(file)
        with pytest.raises(ConfigError, match=r"seed: got .*, must be a whole number"):
            overridden(f"seed=!!python/{tag} ['touch {sign}']")
    assert not sign.exists()


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such config file$"):
        load_config(tmp_path / "none.yaml")
    for name in ("b.yaml", "a.yml", "rows.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=rf"no such config file; {tmp_path} has a\.yml, b\.yaml$"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=f"there is no folder {tmp_path / 'none'}$"):
        load_config(tmp_path / "none" / "a.yaml")
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(tmp_path)
    (tmp_path / "configs").write_text("../magpie_ray/configs")  # a link, where a checkout has none
    with pytest.raises(
        ConfigError, match=r"configs is no folder; the name alone finds the ready config: demo$"
    ):
        load_config(tmp_path / "configs/demo.yaml")
    with pytest.raises(ConfigError, match=r"configs is no folder$"):
        load_config(tmp_path / "configs/mine.yaml")
    with pytest.raises(ConfigError, match="can't be read"):
        load_config("bad\0name")


def test_a_dash_is_the_config_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("num_rows: 7\nsystem_prompt: ü\n".encode())))
    made = load_config("-", ["n_turns=2"])
    assert (made.num_rows, made.n_turns, made.prompts[0].text) == (7, 2, "ü")


@settings(max_examples=60, deadline=None)
@given(
    st.text(),
    st.lists(st.text(st.sampled_from("num_rows.=!&*[]{}'\"#:-1e \n\t") | st.characters()), max_size=3),
)
def test_garbage_in_a_file_or_in_overrides_is_never_anything_but_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, overrides: list[str]
) -> None:
    file = tmp_path_factory.getbasetemp() / "garbage.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    for path in (file, None):
        try:
            load_config(path, overrides)
        except ConfigError as error:
            str(error).encode()


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe\.yaml: is a named pipe"):
        load_config(tmp_path / "pipe.yaml")
