"""A model that thinks: the bundled one in a template with room for reasoning, which vLLM closes for it."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor, RequestLogitsProcessor

from magpie_ray.model.tokenizer import load_tokenizer

MODEL = Path(str(files("magpie_ray").joinpath("tiny_chat")))
# Tokens of each thought, before it is closed.
THOUGHT_TOKENS = 12
_CLOSING = "\n</think>\n\n"
_ENDS = ("<|eot_id|>", "<|end_of_text|>")
_GENERATION = (
    "{%- if add_generation_prompt and enable_thinking is defined and enable_thinking %}{{- '<think>\\n' }}"
    "{%- elif add_generation_prompt %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
)


def thinking_model(folder: Path) -> Path:
    """The bundled model, whose template opens a thought in front of each answer when thinking is on."""
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + _GENERATION)
    settings = folder / "tokenizer_config.json"
    stated = json.loads(settings.read_text())
    stated.pop("chat_template", None)
    settings.write_text(json.dumps(stated))
    return folder


class Closes(AdapterLogitsProcessor):
    """Keeps each thought open for THOUGHT_TOKENS tokens and then closes it."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        tokenizer = load_tokenizer(str(MODEL)).tokenizer
        self._closing = tokenizer.encode(_CLOSING, add_special_tokens=False)
        self._ends = [i for i in tokenizer.convert_tokens_to_ids(list(_ENDS)) if i is not None]

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> RequestLogitsProcessor | None:
        return self._next

    def _next(self, output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        place = len(output_ids) - THOUGHT_TOKENS
        if place < 0:
            logits[self._ends] = -torch.inf
        elif place < len(self._closing):
            forced = self._closing[place]
            kept = logits[forced].clone()
            logits.fill_(-torch.inf)
            logits[forced] = kept
        return logits
