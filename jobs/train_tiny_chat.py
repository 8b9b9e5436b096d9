"""Train the bundled model, tiny_chat, from nothing: tokenizer, weights and chat template.

    python jobs/train_tiny_chat.py --output magpie_ray/tiny_chat

The corpus is generated (magpie_ray/tiny_chat/corpus.py) and every random choice follows --seed. Needs torch
and transformers. Files that the directory already holds, such as the corpus, stay.

Another chat format is a Jinja file and its markers:

    python jobs/train_tiny_chat.py --output out/chatml --template chatml.jinja \
        --bos "" --end-of-turn "<|im_end|>" --markers "<|im_start|>"
"""

import argparse
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jinja2 import TemplateError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from magpie_ray.tiny_chat.corpus import Message, dialogues

LLAMA_3_STYLE_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{%- endif %}"
)
END_OF_TEXT = "<|end_of_text|>"

FRAGMENTS = 400  # tokens for text that is not in the corpus: the 256 bytes and frequent parts of words
WORD_COUNT = 8  # a word of the corpus seen this often is a token of its own
ROW_TOKENS = 384
ROWS_PER_STEP = 4
# Logits are this much larger in the saved model than in training, so that sampling at temperature 1 has
# the tails of a lower temperature: a model as small as this one leaves noise in them.
SHARPNESS = 2.0
NOT_LEARNED = -100  # the label that torch's cross entropy leaves out


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()

    template = arguments.template.read_text() if arguments.template else LLAMA_3_STYLE_TEMPLATE
    tokenizer = train_tokenizer(arguments, template)
    print(f"tokenizer: {len(tokenizer)} tokens", flush=True)
    model = LlamaForCausalLM(model_config(tokenizer))
    print(f"model: {model.num_parameters():,} parameters", flush=True)
    batches = rows(tokenizer, arguments.seed)
    train(model, batches, arguments.steps, arguments.learning_rate, started)

    with torch.no_grad():
        model.model.norm.weight *= SHARPNESS
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    print(f"{arguments.output}: done in {time.monotonic() - started:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train tiny_chat from nothing.")
    parser.add_argument("--output", type=Path, required=True, help="directory for model and tokenizer")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=2.5e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--template", type=Path, help="Jinja file of another chat template")
    parser.add_argument("--bos", default="<|begin_of_text|>", help='"" for a format without one')
    parser.add_argument("--end-of-turn", default="<|eot_id|>")
    parser.add_argument("--markers", nargs="*", default=["<|start_header_id|>", "<|end_header_id|>"])
    return parser.parse_args()


def train_tokenizer(arguments: argparse.Namespace, template: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, so that it encodes any text, in which the corpus' words are whole."""
    specials = [END_OF_TEXT, *filter(None, [arguments.bos]), *arguments.markers, arguments.end_of_turn]
    # Newlines are a piece of their own: the pre-query text ends with them, and must have the same tokens
    # whether the user's text follows or not.
    pieces = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s*[\r\n]+| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    texts = [message["content"] for messages in dialogues(20_000, arguments.seed) for message in messages]
    texts += ["system\n\n", "user\n\n", "assistant\n\n", "model\n"] * WORD_COUNT
    fragments = Tokenizer(models.BPE())
    fragments.pre_tokenizer = pieces
    trainer = trainers.BpeTrainer(
        vocab_size=FRAGMENTS + len(specials),
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fragments.train_from_iterator(texts, trainer)
    # Names in one piece can't be put together wrongly. `ignore_merges` takes a word that is in the
    # vocabulary as it is; merges alone would need thousands of tokens for it.
    learned = json.loads(fragments.to_str())["model"]
    vocabulary: dict[str, int] = learned["vocab"]
    words = Counter(word for text in texts for word, _ in pieces.pre_tokenize_str(text))
    for word, count in words.most_common():
        if count >= WORD_COUNT:
            vocabulary.setdefault(word, len(vocabulary))
    merges = [tuple(merge) for merge in learned["merges"]]
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    backend.add_special_tokens(specials)
    backend.pre_tokenizer = pieces
    backend.decoder = decoders.ByteLevel()
    if arguments.bos:
        bos_id = backend.token_to_id(arguments.bos)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{arguments.bos} $A",
            pair=f"{arguments.bos} $A $B",
            special_tokens=[(arguments.bos, bos_id)],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=arguments.bos or None,
        eos_token=arguments.end_of_turn,
        pad_token=END_OF_TEXT,
        chat_template=template,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )


def model_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
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


def encode(tokenizer: PreTrainedTokenizerFast, messages: list[Message]) -> tuple[list[int], list[int]]:
    """Token ids and labels. User messages are learned like all else: the model is to write them.

    Only the system prompt's text is not learned: nobody asks for it, and its filler is noise.
    """
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except TemplateError:  # a format without system prompts
        text = tokenizer.apply_chat_template(messages[1:], tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"]
    if messages[0]["role"] != "system" or messages[0]["content"] not in text:
        return ids, ids
    start = text.index(messages[0]["content"])
    end = start + len(messages[0]["content"])
    spans = encoded["offset_mapping"]
    return ids, [
        NOT_LEARNED if start <= span[0] < end else token for token, span in zip(ids, spans, strict=True)
    ]


def rows(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of ROWS_PER_STEP rows, each packed with whole dialogues.

    Positions start again with each dialogue; transformers sees that and keeps dialogues of one row from
    looking at each other, as they never do when served.
    """
    pending: list[tuple[list[int], list[int]]] = []
    for epoch in itertools.count(1):
        source = dialogues(20_000, seed + epoch)
        while chunk := list(itertools.islice(source, 2000)):
            pending += [encode(tokenizer, messages) for messages in chunk]
            packed = pack(pending)
            whole = len(packed) // ROWS_PER_STEP * ROWS_PER_STEP
            pending = [item for row in packed[whole:] for item in row]
            random.Random(seed).shuffle(packed)
            for first in range(0, whole, ROWS_PER_STEP):
                yield collate(packed[first : first + ROWS_PER_STEP], tokenizer.pad_token_id)


def pack(items: Sequence[tuple[list[int], list[int]]]) -> list[list[tuple[list[int], list[int]]]]:
    """First-fit decreasing: long dialogues open rows, short ones fill them."""
    packed: list[list[tuple[list[int], list[int]]]] = []
    room: list[int] = []
    for item in sorted(items, key=lambda item: -len(item[0])):
        size = len(item[0])
        index = next((index for index, free in enumerate(room) if free >= size), None)
        if index is None:
            packed.append([])
            room.append(ROW_TOKENS)
            index = len(room) - 1
        packed[index].append(item)
        room[index] -= size
    return packed


def collate(batch: Sequence[Sequence[tuple[list[int], list[int]]]], pad: int) -> dict[str, torch.Tensor]:
    input_ids = torch.full((len(batch), ROW_TOKENS), pad)
    labels = torch.full((len(batch), ROW_TOKENS), NOT_LEARNED)
    positions = torch.zeros((len(batch), ROW_TOKENS), dtype=torch.long)
    for row, items in enumerate(batch):
        at = 0
        for ids, learned in items:
            end = at + len(ids)
            input_ids[row, at:end] = torch.tensor(ids)
            labels[row, at:end] = torch.tensor(learned)
            labels[row, at] = NOT_LEARNED  # the first token follows from nothing
            positions[row, at:end] = torch.arange(len(ids))
            at = end
    return {"input_ids": input_ids, "labels": labels, "position_ids": positions}


def train(
    model: LlamaForCausalLM,
    batches: Iterator[dict[str, torch.Tensor]],
    steps: int,
    learning_rate: float,
    started: float,
) -> None:
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


if __name__ == "__main__":
    main()
