"""Train the bundled model, tiny_chat, from nothing: tokenizer, weights and chat template.

    python jobs/train_tiny_chat.py --output magpie_ray/tiny_chat

The corpus is generated (jobs/tiny_chat/corpus.py) and every random choice follows --seed. Needs torch
and transformers. Files that the directory already holds, such as the corpus, stay.

Or train it on, as long and as fast, with the chat format of another family (jobs/tiny_chat/families.py):

    python jobs/train_tiny_chat.py --output out/chatml --from magpie_ray/tiny_chat --template chatml
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer

# As in generate.py: the package need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.tiny_chat.batches import rows
from jobs.tiny_chat.families import FAMILIES
from jobs.tiny_chat.learning import new_model, save, train, with_tokens_of
from jobs.tiny_chat.tokenizer import train_tokenizer, with_markers

BUNDLED = Path(__file__).resolve().parents[1] / "magpie_ray/tiny_chat"


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    family = FAMILIES.get(arguments.template)
    if family is None:
        tokenizer = train_tokenizer(arguments.seed)
        model = new_model(tokenizer)
    else:
        known = AutoTokenizer.from_pretrained(arguments.source)
        tokenizer = with_markers(known, family)
        model = with_tokens_of(family, arguments.source, known, tokenizer)
    print(f"{len(tokenizer)} tokens, {model.num_parameters():,} parameters", flush=True)
    batches = rows(tokenizer, arguments.seed, family)
    train(model, batches, steps=arguments.steps, learning_rate=arguments.learning_rate)
    ends = family.ends if family else ("<|eot_id|>", "<|end_of_text|>")
    save(model, tokenizer, arguments.output, ends=ends)
    print(f"{arguments.output}: done in {time.monotonic() - started:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train tiny_chat from nothing, or on with another chat format."
    )
    parser.add_argument("--output", type=Path, required=True, help="directory for model and tokenizer")
    parser.add_argument("--template", choices=FAMILIES, help="train on, with the chat format of this family")
    parser.add_argument("--from", dest="source", type=Path, default=BUNDLED, help="the model to train on")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=2.5e-3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
