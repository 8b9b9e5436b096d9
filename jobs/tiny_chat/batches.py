"""Conversations as rows of tokens: rendered, labelled, and packed whole into rows of one length."""

import itertools
import random
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedTokenizerFast

from jobs.tiny_chat.corpus import Message, dialogues

ROW_TOKENS = 384
ROWS_PER_STEP = 4
NOT_LEARNED = -100  # the label that torch's cross entropy leaves out


def encode(tokenizer: PreTrainedTokenizerFast, messages: list[Message]) -> tuple[list[int], list[int]]:
    """Token ids and labels of one conversation.

    User messages are learned too, because the model must write them. The text of a system prompt is not
    learned: its filler words are noise.
    """
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoded["input_ids"]
    prompts = [message["content"] for message in messages if message["role"] == "system"]
    spans = [(text.index(prompt), text.index(prompt) + len(prompt)) for prompt in prompts]
    return ids, [
        NOT_LEARNED if any(first < end and last > start for start, end in spans) else token
        for token, (first, last) in zip(ids, encoded["offset_mapping"], strict=True)
    ]


def rows(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of ROWS_PER_STEP rows, each packed with whole dialogues.

    Position ids restart with each dialogue. From them transformers builds an attention mask that keeps the
    dialogues of one row apart, as they are when the model is served.
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
