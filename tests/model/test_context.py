"""The length of a context: as vLLM works it out, for every way in which models state it."""

import json
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.errors import ConfigError, ModelError
from magpie_ray.model.context import context_length
from magpie_ray.model.resolve import resolve_model
from magpie_ray.planning.plan import make_plan
from tests.support.builds import GEMMA_LIKE, model_folder
from tests.support.configs import config


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_theta": 10000.0, "rope_type": kind, **more}


LLAMA_3 = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=512
)
# Fields of config.json beside those of the bundled model, and the length of the context.
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "as it is": ({}, 2048),
    "scaled linearly": ({"rope_parameters": rope("linear", factor=4.0)}, 8192),
    "scaled dynamically, in the older field": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 4096),
    "scaled as Llama 3": ({"rope_parameters": LLAMA_3}, 2048),
    "scaled with YaRN": (
        {"rope_parameters": rope("yarn", factor=4.0, original_max_position_embeddings=512)},
        2048,
    ),
    "stated twice": ({"max_seq_len": 1024}, 1024),
    "stated for the model": ({"model_max_length": 4096}, 4096),
    "of an older architecture": ({"model_type": "gpt2", "n_positions": 1024, "n_ctx": 1024}, 1024),
}


def folder_with(tmp_path: Path, fields: dict[str, Any]) -> Path:
    folder = Path(model_folder(tmp_path / "model", GEMMA_LIKE))
    stated = json.loads((folder / "config.json").read_text())
    if "rope_scaling" in fields:
        del stated["rope_parameters"]
    if "n_positions" in fields:
        del stated["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(stated | fields))
    return folder


each = pytest.mark.parametrize(("fields", "length"), CASES.values(), ids=CASES)


@each
def test_the_context_is_read_from_the_config(tmp_path: Path, fields: dict[str, Any], length: int) -> None:
    assert context_length(resolve_model(str(folder_with(tmp_path, fields)), None)) == length


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@each
def test_vllm_takes_that_length_and_refuses_more(tmp_path: Path, fields: dict[str, Any], length: int) -> None:
    arg_utils = pytest.importorskip("vllm.engine.arg_utils")
    model = str(folder_with(tmp_path, fields))
    made = arg_utils.EngineArgs(model=model, max_model_len=length, dtype="float32").create_engine_config()
    assert made.model_config.max_model_len == length
    with pytest.raises(ValueError, match="max_model_len"):
        arg_utils.EngineArgs(model=model, max_model_len=length + 1, dtype="float32").create_engine_config()


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "unheard_of"},
        {"max_position_embeddings": 0},
        {"max_position_embeddings": "many"},
        {"rope_parameters": rope("linear", factor="x")},
        {"rope_parameters": [1]},
    ],
)
def test_a_model_that_states_no_length_has_any(tmp_path: Path, fields: dict[str, Any]) -> None:
    folder = folder_with(tmp_path, fields)
    assert context_length(resolve_model(str(folder), None)) is None


def planned(tmp_path: Path, folder: Path, **engine: Any) -> Any:
    return make_plan(
        config(model={"name": str(folder)}, engine=engine, output={"path": str(tmp_path / "out")})
    )


def test_more_than_the_context_is_refused_by_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with(tmp_path, {})
    planned(tmp_path, folder, max_model_len=2048)
    with pytest.raises(ConfigError, match=r"engine\.max_model_len: got 2,049, must be at most 2,048"):
        planned(tmp_path, folder, max_model_len=2049)
    for overrides in (
        {"max_position_embeddings": 4096},
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
        {"text_config": {"max_position_embeddings": 4096}},
    ):
        planned(tmp_path, folder, max_model_len=4096, extra={"hf_overrides": overrides})
    with pytest.raises(ConfigError, match=r"must be at most 2,048"):
        planned(tmp_path, folder, max_model_len=4096, extra={"hf_overrides": {"architectures": ["X"]}})
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    planned(tmp_path, folder, max_model_len=2049)


def test_a_folder_without_a_config_is_refused_by_the_plan_unless_another_one_is_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {})
    config_file = (folder / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        planned(tmp_path, folder)
    planned(tmp_path, folder, extra={"hf_config_path": str(config_file.parent)})


def test_a_prompt_longer_than_the_context_is_refused_by_the_plan(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"max_position_embeddings": 4})
    with pytest.raises(ConfigError, match=r"the model's context has 4, which leaves no room"):
        planned(tmp_path, folder)
