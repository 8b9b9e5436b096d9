"""A plan as people read it."""

import textwrap
from pathlib import Path

import pytest
import yaml

from magpie_ray.cli.views.plan import plan_text
from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import parse_as
from magpie_ray.planning.forecast import CostInputs
from magpie_ray.planning.gpus import find_gpu
from magpie_ray.planning.plan import make_plan
from tests.planning.test_estimate import SAMPLE
from tests.support.builds import config_of, memory_storage
from tests.support.inputs import write_table
from tests.support.sources import write_source

KEY = "hf_abcdefghijklmnop"


def text_of(inputs: CostInputs | None = None, *, full: bool = True, **keys: object) -> str:
    keys = {"output": {"path": memory_storage().url}, "engine": {"device": "cuda"}} | keys
    return plan_text(make_plan(config_of(num_rows=1000, n_turns=2, **keys), inputs), full=full)


def line(text: str, name: str) -> str:
    [match] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return match.removeprefix(name).strip()


def test_the_config_is_at_the_end_as_yaml_and_without_secrets() -> None:
    output = {"path": "s3://b/x", "storage_options": {"key": KEY}}
    text = plan_text(make_plan(config_of(num_rows=7, output={"path": memory_storage().url})), full=True)
    config = yaml.safe_load(text.split("\nconfig\n")[1])
    assert (config["num_rows"], config["seed"], config["model"]["name"]) == (
        7,
        "auto",
        "builtin:tiny-chat",
    )
    shown = config_of(output=output, engine={"extra": {"hf_token": KEY}}).recorded()
    assert KEY not in str(shown)


def test_a_plan_says_that_the_seed_of_a_new_build_is_not_drawn_yet() -> None:
    text = text_of()
    assert line(text, "fingerprint") == "not known before the seed is drawn"
    assert "assumed       seed is auto: drawn when the build begins" in text
    assert len(line(text_of(seed=3), "fingerprint")) == 64


@pytest.mark.parametrize("full", [False, True])
def test_a_plan_says_which_inputs_the_rows_have(tmp_path: Path, full: bool) -> None:
    rows = [
        {"system_prompt": f"You talk to person {i}." if i % 4 else None, "town": f"t{i}"} for i in range(12)
    ]

    def shown(**inputs: object) -> str:
        output = {"path": memory_storage().url}
        return line(plan_text(make_plan(config_of(inputs=inputs, output=output)), full=full), "inputs")

    path = str(write_table(tmp_path / "people.csv", rows))
    assert shown(path=path) == f"12 in 1 CSV file at {path}, 3 without a system prompt"
    (tmp_path / "people.csv").unlink()
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.jsonl", rows[1:4])
    path = str(tmp_path)
    assert shown(path=path, pick="at_random") == f"6 in 2 JSON lines files at {path}, drawn at random"
    assert "\ninputs " not in text_of(full=full)


def test_a_plan_of_answers_says_what_follows_its_prefix(tmp_path: Path) -> None:
    source = write_source(tmp_path / "rows.jsonl", [{"instruction": "Name a fruit."}])
    asked = {"source": {"path": str(source)}, "model": {"name": "builtin:tiny-chat"}}
    config = parse_as(AnswerConfig, {**asked, "output": {"path": memory_storage().url}})
    prompt = line(plan_text(make_plan(config)), "first prompt")
    assert prompt.endswith("<|end_header_id|>⏎⏎ and then the messages of the row")


def test_white_space_in_the_first_prompt_can_be_seen() -> None:
    assert line(text_of(), "first prompt").endswith("<|end_header_id|>⏎⏎")


def test_settings_that_rows_choose_from_are_shown_by_what_sets_them_apart() -> None:
    user = [{"temperature": 1.0, "weight": 3}, {"temperature": 0.7, "weight": 1}]
    text = text_of(sampling={"user": user})
    assert "sampling_key\n   75.00%  0  user.temperature 1.0\n   25.00%  1  user.temperature 0.7\n" in text
    assert "sampling_key\n" not in text_of()


def test_a_gpu_shows_how_the_model_lies_on_it() -> None:
    text = text_of(CostInputs(gpu=find_gpu("H100-80GB"), price_per_gpu_hour=2.0))
    assert line(text, "engine").startswith("1 x H100-80GB, of each 73.6 GB used: ")
    assert "KiB on each GPU" in line(text, "cache")
    assert "about 1,024 sequences at once" in line(text, "batch")
    for name in ("tokens", "time", "size", "GPU-hours", "cost"):
        assert " to " in line(text, name)


def test_a_sample_shows_one_figure_each() -> None:
    text = text_of(CostInputs(sample=SAMPLE))
    assert line(text, "sample") == (
        "1,000 rows by 2 engines in 30 s, up after 20 s: 1,000 tokens/s each, 50 tokens a row, "
        "90.9% of attempts accepted"
    )
    assert line(text, "tokens") == "50k to write, by 1,000 rows made by 2 engines in 30 s"
    assert line(text, "size") == "216 kB"


@pytest.mark.parametrize("word", ["engine", "batch", "sample", "tokens", "time", "GPU-hours", "cost"])
def test_what_is_not_known_is_not_shown(word: str) -> None:
    assert not [line for line in text_of().splitlines() if line.startswith(f"{word} ")]


def test_the_answer_fits_a_terminal_of_24_lines() -> None:
    prompts = {f"key{number}": f"You teach. {'Be kind. ' * 60}" for number in range(30)}
    samplings = [{"temperature": value / 10} for value in range(1, 9)]
    inputs = CostInputs(gpu=find_gpu("H100-80GB"), price_per_gpu_hour=2.0, sample=SAMPLE)
    keys: dict[str, object] = {"system_prompt": prompts, "sampling": {"user": samplings}}
    text = text_of(inputs, full=False, **keys)
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, 80)]
    assert len(lines) <= 23  # and the shell's own
    for name in ("rows", "files", "tokens", "time", "cost", "first prompt"):
        assert line(text, name)
    assert line(text, "system prompts") == "30, drawn by weight"
    assert "config\n" not in text
    assert "as ids" not in text
