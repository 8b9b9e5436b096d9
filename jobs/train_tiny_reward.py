"""Train tiny_reward: a linear head on the bundled model that ranks right answers above wrong ones.

    python jobs/train_tiny_reward.py

Logistic regression on the difference of the last hidden states of a right and a wrong answer (the model of
Bradley and Terry, as reward models are trained). Writes jobs/tiny_chat/reward_head.safetensors. Every random
choice follows --seed. Needs torch and transformers.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

# As in generate.py: the package need not be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.tiny_chat.reward_model import TINY_CHAT, save_head
from jobs.tiny_chat.reward_pairs import Pair, held_out_pairs, training_pairs

_BATCH = 128
# Logits of a size like those of published reward models: the mean distance of two answers.
_DISTANCE = 4.0


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    learned = differences(list(training_pairs(arguments.pairs, arguments.seed)))
    weights = fit(learned, penalty=arguments.penalty)
    held_out = differences(list(held_out_pairs(2000, arguments.seed + 1)))
    for name, pairs in (("training", learned), ("held out", held_out)):
        print(f"{name}: {(pairs @ weights > 0).double().mean():.3f} of {len(pairs)} pairs ranked right")
    save_head(weights.numpy())


@torch.no_grad()
def differences(pairs: Sequence[Pair]) -> torch.Tensor:
    """The last hidden state of the right answer minus that of the wrong one, a row for each pair."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHAT)
    model = AutoModel.from_pretrained(TINY_CHAT, dtype=torch.float32)
    dialogues = [
        [{"role": "user", "content": pair.instruction}, {"role": "assistant", "content": answer}]
        for pair in pairs
        for answer in (pair.right, pair.wrong)
    ]
    ids = [tokenizer.apply_chat_template(each, tokenize=True, return_dict=False) for each in dialogues]
    states = torch.empty(len(ids), model.config.hidden_size)
    by_length = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    for start in range(0, len(ids), _BATCH):
        batch = by_length[start : start + _BATCH]
        rows = [torch.tensor(ids[index]) for index in batch]
        # Behind their ends, where the last states do not see it, the shorter ones are padded.
        hidden = model(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)).last_hidden_state
        states[batch] = hidden[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]
    return states[0::2] - states[1::2]


def fit(learned: torch.Tensor, *, penalty: float) -> torch.Tensor:
    """The weights, one for each hidden number, under which right answers have the larger logits."""
    scale = learned.std(0) + 1e-6
    scaled, weights = learned / scale, torch.zeros(learned.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.softplus(-scaled @ weights).mean() + penalty * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    result = weights.detach() / scale
    return result * _DISTANCE / (learned @ result).abs().mean()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the head of tiny_reward.")
    parser.add_argument("--pairs", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--penalty", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
