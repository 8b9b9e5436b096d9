"""The ready configs: each plans as it is described, and its prompts reach the rows in their proportions."""

import csv
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import load_as, load_config
from magpie_ray.config.schema import Config
from magpie_ray.config.score import ScoreConfig
from magpie_ray.draws import system_prompt_of
from magpie_ray.planning.plan import make_plan
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.types import Partition
from magpie_ray.worker.worker import ShardWorker
from tests.support.builds import memory_storage
from tests.support.engines import ScriptedEngine
from tests.support.paths import ROOT
from tests.support.sources import write_source
from tests.support.specs import worker_spec

_ALL = sorted((ROOT / "magpie_ray" / "configs").glob("*.yaml"))
CONFIGS = [file for file in _ALL if not file.name.startswith(("answer-", "score-"))]
ANSWERS = [file for file in _ALL if file.name.startswith("answer-")]
SCORES = [file for file in _ALL if file.name.startswith("score-")]
SETS = [file for file in CONFIGS if load_config(file).has_prompt_keys]
# The bundled model takes every template that these configs need; of their models no tokenizer is at hand.
# Its context is shorter than theirs, so max_model_len is left to it.
OURS = ("model.name=builtin:tiny-chat", "engine.device=cpu", "engine.max_model_len=null")


def named(name: str, *overrides: str) -> Config:
    return load_config(next(file for file in CONFIGS if file.stem == name), overrides)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_example_plans_with_a_prompt_of_its_own(file: Path) -> None:
    config = load_config(file, [*OURS, f"output.path={memory_storage().url}"])
    planned = make_plan(config)
    assert planned["rows_pending"] == config.num_rows >= 1000
    if config.prompts:
        assert any(prompt.text in planned["first_prompt"] for prompt in config.prompts)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_what_the_header_of_an_example_says_can_be_run(file: Path) -> None:
    header = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert re.search(rf"#   magpie-ray generate {re.escape(file.stem)}( |\n)", header)
    load_config(file, re.findall(r"(?<=\s)[a-z_]+(?:\.[a-z_]+)*=\S+\b", header))


@pytest.mark.parametrize("file", SCORES, ids=lambda file: file.stem)
def test_every_example_of_scores_plans_with_its_question_and_its_header_can_be_run(
    file: Path, tmp_path: Path
) -> None:
    rows = [{"instruction": "Name a fruit.", "response": "A pear."}]
    source = write_source(tmp_path / "rows.jsonl", rows)
    config = load_as(ScoreConfig, file, [*OURS, f"source.path={source}", f"output.path={tmp_path / 'out'}"])
    planned = make_plan(config)
    assert "Name a fruit." in planned["first_prompt"]
    assert planned["columns"] == ["row_id", *config.names]
    header = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert re.search(rf"#   magpie-ray score {re.escape(file.stem)}( |\n)", header)
    load_as(ScoreConfig, file, re.findall(r"(?<=\s)[a-z_]+(?:\.[a-z_]+)*=\S+\b", header))


@pytest.mark.parametrize("file", ANSWERS, ids=lambda file: file.stem)
def test_every_example_of_answers_plans_over_a_source_and_its_header_can_be_run(
    file: Path, tmp_path: Path
) -> None:
    rows = [{"instruction": "Name a fruit."}, {"instruction": "Name a tree."}]
    source = write_source(tmp_path / "rows.jsonl", rows)
    config = load_as(AnswerConfig, file, [*OURS, f"source.path={source}", f"output.path={tmp_path / 'out'}"])
    assert make_plan(config)["rows_pending"] == 2
    header = "".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert re.search(rf"#   magpie-ray answer {re.escape(file.stem)}( |\n)", header)
    overrides = re.findall(r"(?<=\s)[a-z_]+(?:\.[a-z_]+)*=\S+\b", header)
    assert load_as(AnswerConfig, file, overrides).n == 4


def test_the_documented_paths_lead_to_them() -> None:
    link = ROOT / "jobs/configs"
    assert link.readlink() == Path("../magpie_ray/configs")
    assert link.resolve() == CONFIGS[0].parent


def test_the_sets_are_there() -> None:
    assert {file.stem for file in SETS} == {
        "code",
        "creative",
        "languages",
        "magpie-ultra",
        "math",
        "translation",
    }


@pytest.mark.parametrize("file", SETS, ids=lambda file: file.stem)
def test_prompts_of_a_set_differ_and_rows_get_them_in_their_proportions(file: Path) -> None:
    config = load_config(file)
    assert len({prompt.text for prompt in config.prompts}) == len(config.prompts) >= 7
    rows = 5000
    drawn = [system_prompt_of(row, seed=config.seed_number, prompts=config.prompts) for row in range(rows)]
    counts = Counter(prompt.key for prompt in drawn if prompt)
    for prompt in config.prompts:
        assert counts[prompt.key] / rows == pytest.approx(prompt.weight, abs=0.02)


def test_the_eleven_categories_have_the_proportions_of_the_data_set_they_follow() -> None:
    prompts = named("magpie-ultra").prompts
    assert [prompt.weight for prompt in prompts] == pytest.approx([0.125] * 4 + [0.1] * 3 + [0.05] * 4)


def test_the_personas_are_two_hundred_and_each_is_another_one() -> None:
    build_spec = resolve_build(named("personas", *OURS))
    assert build_spec.inputs
    assert (build_spec.inputs.number, build_spec.inputs.prompts) == (200, 200)
    with (ROOT / "magpie_ray/configs/personas.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["system_prompt"] for row in rows}) == len({row["persona"] for row in rows}) == 200
    assert len({row["country"] for row in rows}) >= 100
    for row in rows:
        assert f"Your user is {row['persona']} in {row['country']} who" in row["system_prompt"]


def test_prompts_speak_about_users_in_the_language_of_the_set() -> None:
    for name in ("code", "creative", "magpie-ultra", "math", "translation"):
        assert all("Users " in prompt.text for prompt in named(name).prompts)
    languages = named("languages").prompts
    assert len(languages) >= 10
    wanted = named("languages").acceptance.rules.language
    assert wanted
    assert set(wanted.by_prompt) == {prompt.key for prompt in languages}
    # Words that stand in an English text of such a length.
    assert not any(re.search(r"\b(you|users|the)\b", prompt.text.lower()) for prompt in languages)
    # Where words are not set apart by spaces, folded lines would be.
    for prompt in languages:
        if prompt.key in ("chinese", "japanese"):
            assert " " not in prompt.text


def test_the_eleven_categories_reach_the_rows(tmp_path: Path) -> None:
    rows = 220
    config = named("magpie-ultra", *OURS, f"num_rows={rows}", f"output.path={tmp_path}")
    spec = worker_spec(config)
    worker = ShardWorker(spec, ScriptedEngine())
    partition = Partition(start=0, stop=rows)
    worker.give(partition)
    worker.finish()
    list(worker.run())
    written = pq.read_table(tmp_path / partition.key).to_pylist()
    drawn = [system_prompt_of(row, seed=config.seed_number, prompts=config.prompts) for row in range(rows)]
    assert [row["system_prompt_key"] for row in written] == [prompt.key for prompt in drawn if prompt]
    assert [row["system_prompt"] for row in written] == [prompt.text for prompt in drawn if prompt]
    assert {row["system_prompt_key"] for row in written} == {prompt.key for prompt in config.prompts}
    assert all(len(row["conversation"]) == 6 for row in written)
