"""A score pass before anything starts: the model, the source and what it asks are compared."""

import datetime
import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from jobs.tiny_chat.reward_model import write_reward_model
from magpie_ray.config.loading import parse_as
from magpie_ray.config.score import ScoreConfig
from magpie_ray.errors import BuildMismatchError, ConfigError, FormatError
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.companions import write_companions
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.preflight.target import look_at, open_build
from magpie_ray.storage.storage import Storage
from tests.support.sources import instructions, write_source

TINY = Path(str(files("magpie_ray").joinpath("tiny_chat")))
CHOICE = {"level": {"choice": ["easy", "hard"], "prompt": "Is this easy or hard? {instruction}"}}
REWARD = {"good": {"reward": "response"}}
EMBED = {"vector": {"embed": "instruction"}}
ANSWERED = [{"instruction": f"What is {n}?", "response": f"{n}."} for n in range(5)]
SEVERAL = [
    {"conversation": [{"role": "user", "content": f"What is {n}?"}], "responses": ["one", "two"]}
    for n in range(5)
]


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reward_model(tmp_path_factory.mktemp("models") / "reward")


def config_for(folder: Path, columns: dict[str, Any], *, rows: Any = ANSWERED, **keys: Any) -> ScoreConfig:
    source = write_source(folder / "rows" / "a.parquet", rows).parent
    output = {"path": str(folder / "out")}
    return parse_as(
        ScoreConfig, {"source": {"path": str(source)}, "columns": columns, "output": output} | keys
    )


def begin(config: ScoreConfig) -> BuildSpec:
    """Open the pass, as a run does that is killed at once."""
    storage = Storage(config.output.path)
    build_spec, _, _ = open_build(resolve_build(config), storage, num_actors=1, device="cpu")
    write_companions(build_spec, storage)
    return build_spec


def test_a_choice_has_the_chat_format_of_its_model_and_its_first_prompt(tmp_path: Path) -> None:
    spec = resolve_build(config_for(tmp_path, CHOICE))
    assert spec.form.takes_system
    assert spec.first_input is not None
    assert "Is this easy or hard? What is 0?" in spec.first_input.text
    assert spec.schema.names == ["row_id", "level", "level_probability"]
    assert spec.config.num_rows == 5
    # The question is read once, then the number and what stands behind it.
    assert 0 < spec.read_tokens < len(spec.first_input.ids) / 2


def test_a_pooling_model_needs_no_chat_format(tmp_path: Path, reward_model: Path) -> None:
    spec = resolve_build(config_for(tmp_path, REWARD, model={"name": str(reward_model)}))
    assert spec.chat_format is None
    assert spec.schema.names == ["row_id", "good"]
    assert spec.identity()["model.commit"] == spec.model.commit


def test_the_rows_of_a_source_with_several_answers_get_lists(tmp_path: Path, reward_model: Path) -> None:
    spec = resolve_build(config_for(tmp_path, REWARD, rows=SEVERAL, model={"name": str(reward_model)}))
    assert str(spec.schema.field("good").type).startswith("list<")


@pytest.mark.parametrize(
    ("columns", "rewards", "rows", "said"),
    [
        (CHOICE, True, ANSWERED, "columns of the kind choice need a chat model"),
        (REWARD, False, ANSWERED, "columns of the kind reward need a reward model"),
        (
            {"level": {"choice": ["a", "b"], "prompt": "{response}"}},
            False,
            instructions("One?", "Two?"),
            r"columns\.level: needs the response of a row, and the first 2 rows of",
        ),
        (REWARD, True, instructions("One?", "Two?"), r"columns\.good: needs the response of a row"),
        (
            {"level": {"choice": ["a", "b"], "prompt": "{response}"}},
            False,
            SEVERAL,
            r"columns\.level: names the response of a row, and the rows of this source have several",
        ),
        (
            {"vector": {"embed": "instruction", "dimensions": 4096}},
            False,
            ANSWERED,
            r"columns\.vector\.dimensions: got 4096, but the vectors of the model have",
        ),
    ],
)
def test_what_does_not_fit_the_model_or_the_source_is_refused(
    tmp_path: Path, reward_model: Path, columns: dict[str, Any], rewards: bool, rows: Any, said: str
) -> None:
    model = {"name": str(reward_model)} if rewards else {}
    with pytest.raises((ConfigError, FormatError), match=said):
        resolve_build(config_for(tmp_path, columns, rows=rows, model=model))
    assert not (tmp_path / "out").exists()


def test_a_reward_model_with_several_labels_is_refused(tmp_path: Path, reward_model: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(reward_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="the model has 2 labels, and a reward model has one"):
        resolve_build(config_for(tmp_path, REWARD, model={"name": str(folder)}))


def test_an_embedding_model_whose_size_is_not_known_needs_dimensions(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "nobody-knows", "architectures": ["X"]}))
    with pytest.raises(ConfigError, match=r"columns\.vector\.dimensions: null, but the files of"):
        resolve_build(config_for(tmp_path, EMBED, model={"name": str(folder)}))
    known = {"vector": {"embed": "instruction", "dimensions": 8}}
    spec = resolve_build(config_for(tmp_path, known, model={"name": str(folder)}))
    assert spec.schema.field("vector").type.list_size == 8


def test_a_template_with_a_date_keeps_the_date_of_its_build(
    tmp_path: Path, reward_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(reward_model, folder)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%Y-%m-%d') }}" + template)
    config = config_for(tmp_path, REWARD, model={"name": str(folder)})
    spec = begin(config)
    today = datetime.datetime.now().astimezone().date()
    assert spec.date == today
    found = look_at(config)
    assert found.committed is not None
    # A later day goes on with the date that is recorded.
    record = found.committed.build
    earlier = "2026-01-02"
    other = resolve_build(config, replace(record, identity={**record.identity, "date": earlier}))
    assert other.date == datetime.date.fromisoformat(earlier)
    assert resolve_build(config_for(tmp_path, REWARD, model={"name": str(reward_model)})).date is None


def test_a_pass_grows_with_its_source_and_other_labels_are_another_pass(tmp_path: Path) -> None:
    config = config_for(tmp_path, CHOICE)
    begin(config)
    write_source(tmp_path / "rows" / "b.parquet", ANSWERED)
    assert look_at(config).build_spec.config.num_rows == 10
    other = {"level": {"choice": ["easy", "hard", "odd"], "prompt": CHOICE["level"]["prompt"]}}
    with pytest.raises(BuildMismatchError, match="columns"):
        look_at(config_for(tmp_path, other))


def test_kept_columns_may_not_have_the_names_of_scores(tmp_path: Path) -> None:
    rows = [record | {"level": "x", "topic": "y"} for record in ANSWERED]
    source = write_source(tmp_path / "kept" / "a.parquet", rows).parent
    with pytest.raises(ConfigError, match=r"source\.keep: got level, which is the name of a column"):
        resolve_build(config_for(tmp_path, CHOICE, source={"path": str(source), "keep": ["level"]}))
    spec = resolve_build(config_for(tmp_path, CHOICE, source={"path": str(source), "keep": ["topic"]}))
    assert spec.schema.names[-1] == "topic"
