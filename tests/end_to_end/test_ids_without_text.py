"""A real model with more token ids than its tokenizer: no message that contains such an id is kept."""

import json
import shutil
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from magpie_ray.generation.rounds import Rounds
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Rejection, Row
from magpie_ray.worker.parts import make_recipe, make_window, vllm_engine
from magpie_ray.worker.spec import WorkerSpec
from tests.support.configs import config

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore")]

ROWS = 60


def widened(folder: Path, copied: slice) -> Path:
    """The bundled model with further ids that are as likely as those copied."""
    source = Path(str(files("magpie_ray").joinpath("tiny_chat")))
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    settings = json.loads((folder / "config.json").read_text())
    weights = load_file(source / "model.safetensors")
    name = "model.embed_tokens.weight"
    weights[name] = np.concatenate([weights[name], weights[name][copied]])
    settings["vocab_size"] = len(weights[name])
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_messages_with_ids_that_have_no_text_are_rejected(tmp_path: Path) -> None:
    made = config(
        num_rows=ROWS,
        only_instruction=True,
        model={"name": str(widened(tmp_path / "model", slice(300, 340)))},
        sampling={"user": {"max_tokens": 40}},
        engine={"device": "cpu", "max_model_len": 256, "max_num_seqs": 32},
        output={"path": str(tmp_path / "out")},
    )
    spec = WorkerSpec(
        build_spec=resolve_build(made),
        storage=Storage(str(tmp_path / "out")),
        fingerprint="",
        run=1,
        device="cpu",
    )
    engine = vllm_engine(spec)
    rounds = Rounds(engine, make_recipe(spec), make_window(spec, engine.figures))
    rounds.add(range(ROWS))
    outcomes: list[Row | Rejection] = []
    while rounds.busy:
        outcomes += rounds.step()
    engine.close()
    reasons = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Rejection))
    print(reasons)
    assert sum(isinstance(outcome, Row) for outcome in outcomes) == ROWS
    assert reasons["not_text"] > 0
