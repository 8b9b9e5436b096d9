"""The source of a pass before anything starts: what is refused, and what a source may become."""

from pathlib import Path
from typing import Any

import pytest

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import parse_as
from magpie_ray.errors import BuildMismatchError, ConfigError, FormatError, PreflightError
from magpie_ray.preflight.companions import write_companions
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.preflight.target import look_at, open_build
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build, config_of
from tests.support.sources import instructions, write_source


def config_for(rows: Path, output: Path, **keys: Any) -> AnswerConfig:
    where = {"path": str(rows)} | keys.pop("source", {})
    return parse_as(AnswerConfig, {"source": where, "output": {"path": str(output)}} | keys)


def begin(config: AnswerConfig) -> None:
    """Open the pass, as a run does that is killed at once."""
    storage = Storage(config.output.path)
    build_spec, _, _ = open_build(resolve_build(config), storage, num_actors=1, device="cpu")
    write_companions(build_spec, storage)


def test_a_pass_has_the_rows_of_its_source_and_grows_with_it(tmp_path: Path) -> None:
    rows, output = tmp_path / "rows", tmp_path / "out"
    write_source(rows / "a.parquet", instructions("One?", "Two?"))
    assert resolve_build(config_for(rows, output)).config.num_rows == 2
    begin(config_for(rows, output))
    write_source(rows / "b.parquet", instructions("Three?"))
    grown = look_at(config_for(rows, output))
    assert grown.committed is not None
    assert grown.build_spec.config.num_rows == 3
    assert resolve_build(config_for(rows, output, num_rows=1)).config.num_rows == 1


def test_a_source_whose_rows_changed_is_refused_by_the_file(tmp_path: Path) -> None:
    rows, output = tmp_path / "rows", tmp_path / "out"
    write_source(rows / "b.parquet", instructions("One?", "Two?"))
    begin(config_for(rows, output))
    write_source(rows / "a.parquet", instructions("Zero?"))
    with pytest.raises(BuildMismatchError, match=r"b\.parquet"):
        look_at(config_for(rows, output))


def test_a_build_is_a_source_and_its_fingerprint_is_in_that_of_the_pass(tmp_path: Path) -> None:
    passes = []
    for name, seed in (("one", 1), ("two", 2)):
        complete_build(Storage(str(tmp_path / name)), config=config_of(seed=seed))
        spec = resolve_build(config_for(tmp_path / name, tmp_path / "out", seed=0))
        assert spec.source is not None
        assert (spec.source.kind, spec.config.num_rows) == ("build", 10)
        passes.append(spec.record(4))
    assert passes[0].columns[:4] == ("row_id", "conversation", "instruction", "response")
    assert passes[0].fingerprint != passes[1].fingerprint


def test_a_column_that_rows_have_anyway_is_not_kept(tmp_path: Path) -> None:
    rows = write_source(tmp_path / "rows.parquet", [{"instruction": "One?", "Response": "x"}])
    with pytest.raises(ConfigError, match=r"source\.keep: got Response, which is the name of a column"):
        resolve_build(config_for(rows, tmp_path / "out", source={"keep": ["Response"]}))


def test_more_rows_than_the_source_has_are_refused(tmp_path: Path) -> None:
    rows = write_source(tmp_path / "rows.parquet", instructions("One?"))
    with pytest.raises(ConfigError, match="num_rows: got 2, must be at most 1"):
        resolve_build(config_for(rows, tmp_path / "out", num_rows=2))


def test_an_output_inside_the_source_is_refused(tmp_path: Path) -> None:
    write_source(tmp_path / "rows.parquet", instructions("One?"))
    with pytest.raises(ConfigError, match=r"output\.path: .* lies in source\.path"):
        resolve_build(config_for(tmp_path, tmp_path / "out"))


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"source\.path"):
        resolve_build(config_for(tmp_path / "nothing.parquet", tmp_path / "out"))


def test_a_format_without_system_prompts_refuses_rows_that_have_them(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    rows = write_source(tmp_path / "rows.jsonl", [{"messages": messages}])
    model = {"chat_format": "tests.preflight.test_sources:plain"}
    with pytest.raises(FormatError, match=r'row 0 of .*; set system_prompt: ""'):
        resolve_build(config_for(rows, tmp_path / "out", model=model))
    spec = resolve_build(config_for(rows, tmp_path / "out", model=model, system_prompt=""))
    assert spec.config.num_rows == 1


def plain(tokenizer: Any) -> Any:
    """A chat format that takes no system prompts."""
    from magpie_ray.chat_format import derive

    return derive(tokenizer)
