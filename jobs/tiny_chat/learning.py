"""The model: its size, how it learns, its files."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# Saving multiplies the logits by this, so that sampling at temperature 1 has the tails of temperature 0.5:
# a model as small as this one leaves noise in the tails.
_SHARPNESS = 2.0


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A model with random weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=64,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            attn_implementation="sdpa",
        )
    )


def train(
    model: LlamaForCausalLM, batches: Iterator[dict[str, torch.Tensor]], *, steps: int, learning_rate: float
) -> None:
    """AdamW on `steps` batches. `learning_rate` is the peak of a cosine schedule that ends at zero."""
    started = time.monotonic()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=steps, pct_start=0.06, cycle_momentum=False
    )
    model.train()
    recent: list[float] = []
    for step, batch in enumerate(itertools.islice(batches, steps), start=1):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        recent.append(loss.item())
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            mean = sum(recent) / len(recent)
            print(f"step {step}/{steps}, loss {mean:.4f}, {seconds:.0f} s", flush=True)
            recent.clear()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the sharpened model and its tokenizer into the folder."""
    with torch.no_grad():
        model.model.norm.weight *= _SHARPNESS
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
