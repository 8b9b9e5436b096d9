"""The model: its size, how it learns, what it begins as with another family's tokens, its files.

What always holds: a saved model is sharper than it was in training, and one that learns on is as sharp as in
training again.
"""

import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from jobs.tiny_chat.families import Family
from jobs.tiny_chat.tokenizer import SPACE

# Logits are this much larger in the saved model than in training, so that sampling at temperature 1 has
# the tails of a lower temperature: a model as small as this one leaves noise in them.
_SHARPNESS = 2.0


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """One that knows nothing yet."""
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


def with_tokens_of(
    family: Family, folder: Path, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> LlamaForCausalLM:
    """The model in the folder, whose tokenizer is `old`, with the tokens of `new`, the family's.

    A token of both keeps its embedding, one with a space begins as the same without, the family's as it says.
    """
    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    before = model.get_input_embeddings().weight.detach().clone()
    known = old.get_vocab()
    after = torch.empty(len(new), before.shape[1])
    for token, index in new.get_vocab().items():
        if (old_index := known.get(token, known.get(token.removeprefix(SPACE)))) is not None:
            after[index] = before[old_index]
    begins = family.specials | family.marks | {token: (other,) for token, other in family.words.items()}
    for token, others in begins.items():
        (index,) = new.encode(token, add_special_tokens=False)
        like = [i for other in others for i in old.encode(other, add_special_tokens=False)]
        after[index] = before[like].mean(dim=0)
    with torch.no_grad():
        model.resize_token_embeddings(len(new), mean_resizing=False)
        model.get_input_embeddings().weight.copy_(after)
        model.model.norm.weight /= _SHARPNESS
    for name in ("bos", "eos", "pad"):
        setattr(model.config, f"{name}_token_id", getattr(new, f"{name}_token_id"))
    return model


def train(
    model: LlamaForCausalLM, batches: Iterator[dict[str, torch.Tensor]], *, steps: int, learning_rate: float
) -> None:
    """AdamW over so many batches, with a cosine from the peak `learning_rate` to nothing."""
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


def save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, *, ends: Iterable[str]
) -> None:
    """Write the model, sharpened, and its tokenizer. `ends`: the tokens that generation_config.json lists."""
    with torch.no_grad():
        model.model.norm.weight *= _SHARPNESS
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.convert_tokens_to_ids(token) for token in ends],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
