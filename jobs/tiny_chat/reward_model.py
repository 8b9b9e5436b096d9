"""tiny_reward: the bundled model as a reward model for its own tasks.

The committed file holds the weights of a linear head, which `jobs/train_tiny_reward.py` learned. All else is
the bundled model's. The result is a plain LlamaForSequenceClassification, which vLLM and transformers read.
"""

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

HEAD_FILE = Path(__file__).parent / "reward_head.safetensors"
HEAD = "score.weight"
TINY_CHAT = Path(str(files("magpie_ray").joinpath("tiny_chat")))
_OTHER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def save_head(weights: np.ndarray[Any, Any]) -> None:
    """Write the file to commit. weights: one for each hidden number of the bundled model."""
    save_file({HEAD: weights.reshape(1, -1).astype(np.float32)}, HEAD_FILE)


def write_reward_model(folder: Path) -> Path:
    """Write the reward model to a folder, made where it is missing. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = load_file(TINY_CHAT / "model.safetensors") | load_file(HEAD_FILE)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((TINY_CHAT / "config.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    for name in _OTHER_FILES:
        shutil.copyfile(TINY_CHAT / name, folder / name)
    return folder
