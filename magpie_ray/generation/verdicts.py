"""Verdicts on completions: decoded to messages, and accepted or rejected.

Invariants: deciding reads conversations and changes nothing, so it is safe in another thread while the engine
steps on. Verdicts come out in the order in which completions went in.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

from magpie_ray.acceptance import CONTEXT_FULL, UNFINISHED_REASONING, Dialogue, Utterance, reason_to_reject
from magpie_ray.chat_format.format import Answer
from magpie_ray.engine.protocol import Completion
from magpie_ray.generation.conversation import Conversation, Recipe
from magpie_ray.types import Message


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
    """Decides on the executor while the engine steps on; without one, in the caller's thread."""

    def __init__(self, recipe: Recipe, executor: Executor | None) -> None:
        self._recipe = recipe
        self._executor = executor
        self._batches: deque[Future[list[Verdict]]] = deque()
        self.pending = 0  # completions whose verdict has not come out

    def submit(self, completed: Sequence[tuple[Conversation, Completion]]) -> None:
        """Queue a batch of completions."""
        self.pending += len(completed)
        if self._executor is None:
            batch: Future[list[Verdict]] = Future()
            batch.set_result(decide(self._recipe, completed))
        else:
            batch = self._executor.submit(decide, self._recipe, completed)
        self._batches.append(batch)

    def take(self, *, wait: bool) -> Iterator[Verdict]:
        """Verdicts that are ready; with `wait`, those of at least one batch if there is any."""
        while self._batches and (wait or self._batches[0].done()):
            wait = False
            for verdict in self._batches.popleft().result():
                self.pending -= 1
                yield verdict


def decide(recipe: Recipe, completed: Sequence[tuple[Conversation, Completion]]) -> list[Verdict]:
    """A verdict on each completion, in order."""
    texts = recipe.decode([completion.token_ids for _, completion in completed])
    return [_verdict_on(recipe, *one, text) for one, text in zip(completed, texts, strict=True)]


def _verdict_on(recipe: Recipe, conversation: Conversation, completion: Completion, text: str) -> Verdict:
    role = conversation.next_role
    sampling = conversation.sampling.of(role)
    if sampling.first_line_only:
        completion, text = _cut_at_first_line(recipe, conversation, completion, text)
    token_ids = completion.token_ids
    answer: Answer | None = Answer("", text)
    if recipe.reasoning and role == "assistant":
        answer = recipe.reasoning.split(text)
        if answer and answer.content != text:
            # Preceding text may change a message's first tokens, so the content is tokenized by itself.
            token_ids = _encode(recipe, conversation, answer.content)
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
        reason = CONTEXT_FULL if filled_context else UNFINISHED_REASONING
        return Verdict(conversation, message, token_ids, reason)
    utterance = Utterance(
        role=role,
        text=message.text,
        reasoning=message.reasoning,
        token_ids=token_ids,
        finish_reason=completion.finish_reason,
        filled_context=filled_context,
    )
    dialogue = Dialogue(messages=tuple(conversation.messages), system_prompt=conversation.system_prompt)
    keeps_reasoning = recipe.reasoning and recipe.reasoning.kept
    return Verdict(
        conversation,
        message,
        completion.token_ids if keeps_reasoning else token_ids,
        reason_to_reject(utterance, dialogue, recipe.rules),
    )


def _cut_at_first_line(
    recipe: Recipe, conversation: Conversation, completion: Completion, text: str
) -> tuple[Completion, str]:
    """The completion as if it had ended before its first line break. `text` is without blanks around it."""
    line = text.splitlines()[0].rstrip() if text else text
    if line == text:
        return completion, text
    # The line's last token may contain the line break, so the line is tokenized by itself.
    ids = _encode(recipe, conversation, line)
    return replace(completion, token_ids=ids, finish_reason="stop"), line


def _encode(recipe: Recipe, conversation: Conversation, text: str) -> list[int]:
    """Token ids of a text as the conversation's next message."""
    assert recipe.encode, "only a recipe with a tokenizer asks for parts of messages"
    prompt = conversation.system_prompt
    return recipe.encode(text, len(conversation.message_ids), prompt.text if prompt else None)
