"""Train the bundled model, tiny_chat, from nothing: tokenizer, weights and chat template.

    python jobs/train_tiny_chat.py --output magpie_ray/tiny_chat

The corpus is generated (jobs/tiny_chat/corpus.py) and every random choice follows --seed. Needs torch
and transformers. Other files in the directory, such as README.md, stay.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

# As in generate.py: the package need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.tiny_chat.batches import rows
from jobs.tiny_chat.learning import new_model, save, train
from jobs.tiny_chat.tokenizer import train_tokenizer


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    tokenizer = train_tokenizer(arguments.seed)
    model = new_model(tokenizer)
    print(f"{len(tokenizer)} tokens, {model.num_parameters():,} parameters", flush=True)
    batches = rows(tokenizer, arguments.seed)
    train(model, batches, steps=arguments.steps, learning_rate=arguments.learning_rate)
    save(model, tokenizer, arguments.output)
    print(f"{arguments.output}: done in {time.monotonic() - started:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train tiny_chat from nothing.")
    parser.add_argument("--output", type=Path, required=True, help="directory for model and tokenizer")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=2.5e-3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
