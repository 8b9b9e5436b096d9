"""Completions -> verdicts: decoded, and accepted or rejected. Reads conversations, changes nothing."""

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
    """A judged completion: its message, and why it is rejected (None: accepted).

    token_ids: what the conversation goes on with, which is the completion without its reasoning.
    """

    conversation: Conversation
    completion: Completion
    message: Message
    token_ids: list[int]
    reason: str | None


def judge(recipe: Recipe, completed: Sequence[tuple[Conversation, Completion]]) -> list[Verdict]:
    """A verdict for each completion, in order. Safe in another thread while the engine steps on."""
    texts = recipe.decode([completion.token_ids for _, completion in completed])
    return [_judge(recipe, *one, text) for one, text in zip(completed, texts, strict=True)]


def _judge(recipe: Recipe, conversation: Conversation, completion: Completion, text: str) -> Verdict:
    role = conversation.next_role
    if conversation.sampling.of(role).first_line_only:
        completion, text = _cut_at_first_line(recipe, conversation, completion, text)
    token_ids = completion.token_ids
    answer: Answer | None = Answer("", text)
    if recipe.reasoning and role == "assistant":
        answer = recipe.reasoning.split(text)
        if answer and answer.content != text:
            # What stands before a text may change its first tokens: these are as if nothing else had.
            token_ids = _encoded(recipe, conversation, answer.content)
    message = Message(
        role=role,
        text=answer.content if answer else text,
        reasoning=answer.reasoning if answer else "",
        finish_reason=completion.finish_reason,
        prompt_tokens=conversation.prompt_tokens,
        completion_tokens=completion.num_tokens,
    )
    # What cuts a message is max_tokens or, before it, the end of the context.
    filled_context = (
        completion.finish_reason == "length"
        and completion.num_tokens < conversation.sampling.of(role).settings.max_tokens
    )
    if answer is None:
        reason: str | None = CONTEXT_FULL if filled_context else UNFINISHED_REASONING
        return Verdict(conversation, completion, message, token_ids, reason)
    utterance = Utterance(
        role=role,
        text=message.text,
        reasoning=message.reasoning,
        token_ids=token_ids,
        finish_reason=completion.finish_reason,
        filled_context=filled_context,
    )
    before = Dialogue(messages=tuple(conversation.messages), system_prompt=conversation.system_prompt)
    reason = reason_to_reject(utterance, before, recipe.rules)
    kept = completion.token_ids if recipe.reasoning and recipe.reasoning.kept else token_ids
    return Verdict(conversation, completion, message, kept, reason)


def _cut_at_first_line(
    recipe: Recipe, conversation: Conversation, completion: Completion, text: str
) -> tuple[Completion, str]:
    """The completion as if it had ended before its first line break. `text` is without blanks around it."""
    line = text.splitlines()[0].rstrip() if text else text
    if line == text:
        return completion, text
    # The break may be a part of the line's last token, so ids are those of the line itself.
    ids = _encoded(recipe, conversation, line)
    return replace(completion, token_ids=ids, finish_reason="stop"), line


def _encoded(recipe: Recipe, conversation: Conversation, text: str) -> list[int]:
    """Ids of a text as the conversation's next message."""
    assert recipe.encode, "parts of messages are only wanted where they can be tokenized"
    prompt = conversation.system_prompt
    return recipe.encode(text, len(conversation.message_ids), prompt.text if prompt else None)


class Judge:
    """Judges on the executor while the engine steps on; without one in the caller's thread, deterministic."""

    def __init__(self, recipe: Recipe, executor: Executor | None) -> None:
        self._recipe = recipe
        self._executor = executor
        self._under_way: deque[Future[list[Verdict]]] = deque()
        self.backlog = 0  # completions without a verdict

    def submit(self, completed: Sequence[tuple[Conversation, Completion]]) -> None:
        """Completions to be judged, in order."""
        self.backlog += len(completed)
        if self._executor is None:
            future: Future[list[Verdict]] = Future()
            future.set_result(judge(self._recipe, completed))
        else:
            future = self._executor.submit(judge, self._recipe, completed)
        self._under_way.append(future)

    def verdicts(self, *, wait: bool) -> Iterator[Verdict]:
        """Those that are there; with `wait`, of at least one batch if any is under way."""
        while self._under_way and (wait or self._under_way[0].done()):
            wait = False
            for verdict in self._under_way.popleft().result():
                self.backlog -= 1
                yield verdict
