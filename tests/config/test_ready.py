"""The ready configs, and which file the name of a config stands for."""

import logging
from pathlib import Path

import pytest

from magpie_ray.config.loading import load_config
from magpie_ray.config.ready import find_config, find_ready, nearest_first, ready_names, write_copy
from magpie_ray.errors import ConfigError, PreflightError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the command."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_ready_config_has_a_sentence_that_fits_on_a_line_with_its_name() -> None:
    assert {"demo", "smollm2", "qwen2.5-7b", "llama-3.1-8b", "personas"} <= set(ready_names())
    for name in ready_names():
        summary = find_ready(name).summary
        assert summary.endswith(".")
        assert 20 < len(summary) <= 65, name
    assert [file.name for file in find_ready("personas").beside] == ["personas.csv"]
    assert find_ready("demo").beside == ()


def test_a_bare_name_is_a_ready_config_and_the_log_says_where_it_lies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    found = find_config("llama-3.1-8b")
    assert found == find_ready("llama-3.1-8b").path
    assert caplog.messages == [f"the config llama-3.1-8b is the ready one, {found}"]
    assert load_config("demo", ["num_rows=7"]).num_rows == 7


@pytest.mark.parametrize("own", ["demo", "demo.yaml", "demo.yml"])
def test_a_file_of_the_users_wins_over_the_ready_config(here: Path, own: str) -> None:
    (here / own).write_text("num_rows: 3\n")
    assert load_config("demo").num_rows == 3


def test_the_log_names_the_users_own_file_where_the_name_is_another(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (here / "demo.yaml").write_text("num_rows: 3\n")
    load_config("demo.yaml")
    assert caplog.messages == []
    load_config("demo")
    assert caplog.messages == ["the config demo is the file demo.yaml in this folder"]


def test_a_folder_of_that_name_is_in_nobodys_way(here: Path) -> None:
    (here / "demo").mkdir()
    (here / "smollm2.yaml").mkdir()
    assert find_config("demo") == find_ready("demo").path
    assert find_config("smollm2") == find_ready("smollm2").path


@pytest.mark.parametrize("path", ["-", "demo.yaml", "./demo.yaml", "x/demo", "/demo", "dmeo", "", "x" * 5000])
def test_any_other_path_stands_for_itself(path: str) -> None:
    assert find_config(path) == Path(path)


def test_a_name_that_nothing_has_lists_the_ready_configs_nearest_first(here: Path) -> None:
    for wrong in ("qwen2.5", "qwen2.5.yaml"):
        with pytest.raises(ConfigError) as caught:
            load_config(wrong)
        assert str(caught.value).startswith(
            f"{wrong}: there is no such config file; the ready configs are qwen2.5-7b, "
        )
        assert str(caught.value).endswith(": magpie-ray init NAME writes one")
    (here / "mine.yaml").touch()
    with pytest.raises(ConfigError, match=r"no such config file; \. has mine\.yaml; the ready configs are"):
        load_config("yours.yaml")
    with pytest.raises(ConfigError, match=r"there is no ready config 'smollm'; there are smollm2, "):
        find_ready("smollm")
    assert sorted(nearest_first("qwen")) == ready_names()


def test_a_copy_is_the_config_with_the_command_that_runs_the_copy(here: Path) -> None:
    assert write_copy(find_ready("demo")) == (Path("demo.yaml"),)
    ready, copy = find_ready("demo").path.read_text(), (here / "demo.yaml").read_text()
    assert copy == ready.replace("generate demo", "generate demo.yaml")
    assert load_config("demo.yaml") == load_config(find_ready("demo").path)
    write_copy(find_ready("demo"), Path("my own.yaml"))
    assert "#   magpie-ray generate 'my own.yaml'\n" in (here / "my own.yaml").read_text()


def test_the_command_of_a_pass_runs_the_copy_too(here: Path) -> None:
    write_copy(find_ready("score-quality"))
    assert "#   magpie-ray score score-quality.yaml source.path=" in (here / "score-quality.yaml").read_text()


def test_a_config_is_copied_with_its_table_which_it_then_reads(here: Path) -> None:
    (here / "sub").mkdir()
    written = write_copy(find_ready("personas"), Path("sub"))
    assert written == (Path("sub/personas.yaml"), Path("sub/personas.csv"))
    assert load_config("sub/personas.yaml").inputs.path == "sub/personas.csv"
    assert load_config("personas").inputs.path == str(find_ready("personas").path.with_suffix(".csv"))


def test_nothing_is_written_over_a_file_that_is_there(here: Path) -> None:
    (here / "personas.csv").write_text("mine")
    with pytest.raises(PreflightError, match=r"personas\.csv: is there already .* init personas another/fol"):
        write_copy(find_ready("personas"))
    assert [file.name for file in here.iterdir()] == ["personas.csv"]
    (here / "demo.yaml").symlink_to("nowhere")
    with pytest.raises(PreflightError, match=r"demo\.yaml: is there already .* magpie-ray init demo FILE$"):
        write_copy(find_ready("demo"))
    assert (here / "personas.csv").read_text() == "mine"


def test_a_second_copy_shares_the_table_that_is_there(here: Path) -> None:
    write_copy(find_ready("personas"))
    written = write_copy(find_ready("personas"), Path("other.yaml"))
    assert written == (Path("other.yaml"), Path("personas.csv"))


def test_a_place_that_can_not_be_written_to_is_one_message() -> None:
    with pytest.raises(PreflightError, match=r"none/x\.yaml: there is no folder none; make it first"):
        write_copy(find_ready("demo"), Path("none/x.yaml"))
    with pytest.raises(PreflightError, match=r"none: must end in \.yaml, or be a folder"):
        write_copy(find_ready("demo"), Path("none"))
