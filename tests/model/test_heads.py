"""What a pooling model gives, by the files beside its weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.model.heads import architecture_of, label_count, vector_size
from magpie_ray.model.resolve import Model, resolve_model

BERT = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 48}
CLASSIFIER = {
    "model_type": "llama",
    "architectures": ["LlamaForSequenceClassification"],
    "hidden_size": 64,
    "num_labels": 1,
}


def model(folder: Path, config: dict[str, Any], **files: object) -> Model:
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return resolve_model(str(folder), None)


def test_the_size_of_vectors_is_that_of_the_hidden_layers(tmp_path: Path) -> None:
    assert vector_size(model(tmp_path, BERT)) == 48


def test_a_dense_layer_behind_the_others_decides(tmp_path: Path) -> None:
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    found = model(tmp_path, BERT, modules=modules, **{"2_Dense__config": {"out_features": 16}})
    assert vector_size(found) == 16


def test_a_size_that_the_config_states_goes_before_that_of_the_hidden_layers(tmp_path: Path) -> None:
    assert vector_size(model(tmp_path, BERT | {"embedding_size": 12})) == 12


@pytest.mark.parametrize("modules", ["{", [{"type": "sentence_transformers.models.Dense"}], "[1]"])
def test_files_that_say_nothing_give_no_size(tmp_path: Path, modules: object) -> None:
    files: dict[str, Any] = {"modules": modules}
    size = vector_size(model(tmp_path, BERT, **files))
    assert size in (None, 48)


def test_a_config_that_nobody_knows_gives_no_size(tmp_path: Path) -> None:
    assert vector_size(model(tmp_path, {"model_type": "no such"})) is None


def test_a_model_that_classifies_has_labels_and_others_have_none(tmp_path: Path) -> None:
    assert label_count(model(tmp_path, CLASSIFIER)) == 1
    assert label_count(model(tmp_path, CLASSIFIER | {"num_labels": 3})) == 3
    assert label_count(model(tmp_path, BERT)) is None
    assert label_count(resolve_model("builtin:tiny-chat", None)) is None


def test_an_architecture_is_the_first_that_is_named(tmp_path: Path) -> None:
    assert architecture_of(model(tmp_path, CLASSIFIER)) == "LlamaForSequenceClassification"
    assert architecture_of(model(tmp_path, {"model_type": "bert"})) == ""
