"""Verdicts on completions: decoded to messages, and accepted or rejected.

Invariants: deciding reads conversations and changes nothing, so it is safe in another thread while the engine
steps on. Verdicts come out in the order in which completions went in.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, replace

from magpie_ray.acceptance import (
    CONTEXT_FULL,
    NOT_TEXT,
    UNFINISHED_REASONING,
    Dialogue,
    Rule,
    Utterance,
    reason_to_reject,
)
from magpie_ray.chat_format.format import Answer
from magpie_ray.engine.protocol import Completion
from magpie_ray.generation.conversation import Conversation
from magpie_ray.generation.recipe import Recipe
from magpie_ray.types import Message

# Decoding shows bytes that make no character as this one. A character has at most four bytes.
_UNDECODED = "\ufffd"
_MOST_CUT_BYTES = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """A completion as a message, and the reason to reject it (None: it is accepted).

    token_ids: the message in later prompts, which leave its reasoning out unless the chat format keeps it.
    """

    conversation: Conversation
    message: Message
    token_ids: list[int]
    reason: str | None


class Verdicts:
    """Decides on the executor while the engine steps on; without one, in the caller's thread.

    decided: completions so far. rule: the name of the last rule that began, which may be at work.
    """

    def __init__(self, recipe: Recipe, executor: Executor | None) -> None:
        self._recipe = replace(
            recipe, rules={name: self._named(name, rule) for name, rule in recipe.rules.items()}
        )
        self._executor = executor
        self.decided, self.rule = 0, ""
        self._batches: deque[Future[list[Verdict]]] = deque()
        self.pending = 0  # completions whose verdict has not come out

    def submit(self, completed: Sequence[tuple[Conversation, Completion]]) -> None:
        """Queue a batch of completions."""
        self.pending += len(completed)
        if self._executor is None:
            batch: Future[list[Verdict]] = Future()
            batch.set_result(self._decide(completed))
        else:
            batch = self._executor.submit(self._decide, completed)
        self._batches.append(batch)

    def take(self, *, wait_seconds: float) -> Iterator[Verdict]:
        """Verdicts that are ready; where none is, those of the first batch if it is ready soon."""
        if self._batches and wait_seconds:
            wait([self._batches[0]], timeout=wait_seconds)
        while self._batches and self._batches[0].done():
            for verdict in self._batches.popleft().result():
                self.pending -= 1
                yield verdict

    def _decide(self, completed: Sequence[tuple[Conversation, Completion]]) -> list[Verdict]:
        verdicts = []
        for verdict in decide(self._recipe, completed):
            verdicts.append(verdict)
            self.decided += 1
        return verdicts

    def _named(self, name: str, rule: Rule) -> Rule:
        """The rule, which says that it begins."""

        def named(utterance: Utterance, dialogue: Dialogue) -> str | None:
            self.rule = name
            return rule(utterance, dialogue)

        return named


def decide(recipe: Recipe, completed: Sequence[tuple[Conversation, Completion]]) -> Iterator[Verdict]:
    """A verdict on each completion, in order."""
    texts = recipe.decode([completion.token_ids for _, completion in completed])
    for (conversation, completion), text in zip(completed, texts, strict=True):
        yield _verdict_on(recipe, conversation, completion, text)


def _verdict_on(recipe: Recipe, conversation: Conversation, completion: Completion, text: str) -> Verdict:
    role = conversation.next_role
    is_text = recipe.knows(completion.token_ids)
    sampling = conversation.sampling.of(role)
    if completion.finish_reason == "length":
        completion, text = _without_cut_character(recipe, conversation, completion, text)
    if sampling.first_line_only:
        completion, text = _cut_at_first_line(recipe, conversation, completion, text)
    token_ids = completion.token_ids
    answer: Answer | None = Answer("", text)
    if recipe.reasoning and role == "assistant":
        answer = recipe.reasoning.split(text)
        if answer and answer.content != text:
            # Preceding text may change a message's first tokens, so the content is tokenized by itself.
            _, closed, rest = text.partition(recipe.reasoning.closing)
            start = text.index(answer.content, len(text) - len(rest) if closed else 0)
            span = range(start, start + len(answer.content))
            token_ids = _encode(recipe, conversation, token_ids, text, span)
    message = Message(
        role=role,
        text=answer.content if answer else text,
        reasoning=answer.reasoning if answer else "",
        finish_reason=completion.finish_reason,
        prompt_tokens=conversation.prompt_tokens,
        completion_tokens=completion.num_tokens,
    )
    # A message is cut by max_tokens or, before that, by the end of the context.
    is_cut = completion.finish_reason == "length"
    filled_context = is_cut and completion.num_tokens < sampling.settings.max_tokens
    if answer is None:
        unfinished = CONTEXT_FULL if filled_context else UNFINISHED_REASONING
        return Verdict(conversation, message, token_ids, unfinished)
    utterance = Utterance(
        role=role,
        text=message.text,
        reasoning=message.reasoning,
        token_ids=token_ids,
        finish_reason=completion.finish_reason,
        filled_context=filled_context,
    )
    dialogue = Dialogue(messages=tuple(conversation.messages), system_prompt=conversation.system_prompt)
    reason = reason_to_reject(utterance, dialogue, [*recipe.rules.values()])
    keeps_reasoning = recipe.reasoning and recipe.reasoning.kept
    return Verdict(
        conversation,
        message,
        completion.token_ids if keeps_reasoning else token_ids,
        reason if reason or is_text else NOT_TEXT,
    )


def _cut_at_first_line(
    recipe: Recipe, conversation: Conversation, completion: Completion, text: str
) -> tuple[Completion, str]:
    """The completion as if it had ended before its first line break. `text` is without blanks around it."""
    line = text.splitlines()[0].rstrip() if text else text
    if line == text:
        return completion, text
    # The line's last token may contain the line break, so the line is tokenized by itself.
    ids = _encode(recipe, conversation, completion.token_ids, text, range(len(line)))
    return replace(completion, token_ids=ids, finish_reason="stop"), line


def _without_cut_character(
    recipe: Recipe, conversation: Conversation, completion: Completion, text: str
) -> tuple[Completion, str]:
    """The completion without the character that its end has cut, which decoding shows as U+FFFD.

    Some tokenizers show each byte of the character so, and of the whole characters before it where their
    bytes are tokens. Other tokens hold bytes of two characters: then the text before the cut is tokenized.
    """
    if not text.endswith(_UNDECODED):
        return completion, text
    ids = completion.token_ids
    # Each token of the cut character holds at least one of its bytes.
    heads = [ids[: len(ids) - cut] for cut in range(1, min(len(ids), _MOST_CUT_BYTES) + 1)]
    by_head = dict(zip(reversed(recipe.decode(heads)), reversed(heads), strict=True))
    whole = text.removesuffix(_UNDECODED).rstrip()
    kept = min([whole, *by_head], key=lambda text: (text.count(_UNDECODED), -len(text)))
    if kept in by_head:
        return replace(completion, token_ids=by_head[kept]), kept
    ids = _encode(recipe, conversation, ids, text, range(len(kept)))
    return replace(completion, token_ids=ids), kept


def _encode(
    recipe: Recipe, conversation: Conversation, token_ids: list[int], text: str, span: range
) -> list[int]:
    """Token ids of a span of the characters of the message `text` as the conversation's next message."""
    assert recipe.encode, "only a recipe with a tokenizer asks for parts of messages"
    part = text[span.start : span.stop]
    generated = {i for i in recipe.markers.keys() & set(token_ids) if recipe.markers[i] in part}
    if generated:  # in the span, or elsewhere in the message
        generated &= set(_tokens_of(recipe, token_ids, span))
    return recipe.encode(part, len(conversation.message_ids), conversation.start, generated)


def _tokens_of(recipe: Recipe, token_ids: list[int], span: range) -> list[int]:
    """The tokens that a span of the characters of the decoded message was decoded from."""

    def characters(tokens: int) -> int:
        return len(recipe.decode([token_ids[:tokens]])[0])

    counts = range(len(token_ids) + 1)
    first = bisect_right(counts, span.start, key=characters) - 1
    last = bisect_left(counts, span.stop, key=characters)
    return token_ids[max(0, first) : last]
