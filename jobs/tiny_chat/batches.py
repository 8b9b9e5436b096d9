"""Conversations as rows of tokens: rendered, packed whole into rows, labelled with what is to be learned."""

import itertools
import random
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedTokenizerFast

from jobs.tiny_chat import corpus
from jobs.tiny_chat.corpus import Message, dialogues
from jobs.tiny_chat.families import Family

ROW_TOKENS = 384
ROWS_PER_STEP = 4
NOT_LEARNED = -100  # the label that torch's cross entropy leaves out


def encode(
    tokenizer: PreTrainedTokenizerFast, messages: list[Message], family: Family | None = None
) -> tuple[list[int], list[int]]:
    """Token ids and labels. User messages are learned like all else: the model is to write them.

    Not learned are a system prompt's text, which nobody asks for and whose filler is noise; what says that
    an answer is not thought about, as the prompt says it; rounds before the last where they are rewritten.
    """
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoded["input_ids"]
    given = [message["content"] for message in messages if message["role"] == "system"]
    if family and family.no_thought and family.no_thought in text:
        given.append(family.no_thought)
    spans = [(text.index(part), text.index(part) + len(part)) for part in given]
    if family and family.rewrites_history:
        # Up to the last user's text, and the space that is joined with its first word.
        spans.append((0, len(text[: text.rindex(messages[-2]["content"])].rstrip(" "))))
    return ids, [
        # A token may begin with the space that stands before a span.
        NOT_LEARNED if any(first < end and last > start for start, end in spans) else token
        for token, (first, last) in zip(ids, encoded["offset_mapping"], strict=True)
    ]


def rows(
    tokenizer: PreTrainedTokenizerFast, seed: int, family: Family | None = None
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of ROWS_PER_STEP rows, each packed with whole dialogues, as the family has them.

    Positions start again with each dialogue; transformers sees that and keeps dialogues of one row from
    looking at each other, as they never do when served.
    """
    pending: list[tuple[list[int], list[int]]] = []
    for epoch in itertools.count(1):
        source = dialogues(20_000, seed + epoch)
        if family is not None:
            source = _as_in(family, source, random.Random(seed + epoch))
        while chunk := list(itertools.islice(source, 2000)):
            pending += [encode(tokenizer, messages, family) for messages in chunk]
            packed = pack(pending)
            whole = len(packed) // ROWS_PER_STEP * ROWS_PER_STEP
            pending = [item for row in packed[whole:] for item in row]
            random.Random(seed).shuffle(packed)
            for first in range(0, whole, ROWS_PER_STEP):
                yield collate(packed[first : first + ROWS_PER_STEP], tokenizer.pad_token_id)


def _as_in(family: Family, source: Iterator[list[Message]], rng: random.Random) -> Iterator[list[Message]]:
    """Dialogues of which the last round is written as it is when it is the last: any of them may be that.

    Where the family thinks, every other last answer is thought about.
    """
    for messages in source:
        if family.rewrites_history:
            system = messages[0]["role"] == "system"
            messages = messages[: system + 2 * rng.randint(1, len(messages) // 2)]
        if family.no_thought and rng.random() < 0.5:
            (reasoning,) = set(corpus.reasonings(messages[:-1]))
            messages = [*messages[:-1], messages[-1] | {"reasoning_content": reasoning}]
        yield messages


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
