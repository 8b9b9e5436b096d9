"""What tiny_chat is worth, measured on real vLLM: the figures of its model card.

    pytest tests/end_to_end/test_tiny_chat_quality.py -s

One engine serves all tests. User messages are sampled at temperature 1, answers are greedy, as the job
does it; each message ends by itself or counts as broken.
"""

import os

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.tiny_chat import corpus
from magpie_ray.tiny_chat.corpus import MULTI_TURN_SYSTEM_PROMPT, TOPICS, Message

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore")]

MODEL = Path(corpus.__file__).parent
MESSAGE_TOKENS = 64
ROWS = 1000
TOPIC_ROWS = 500
LONG_ROWS = 200
TAUGHT_PROMPT = "You are a helpful assistant for {topic}."  # the model card's
UNTAUGHT_PROMPT = "Our guests are curious visitors of a museum, so explain {topic} to them with patience."


class Chat:
    """Writes both sides of conversations, round by round."""

    def __init__(self) -> None:
        from vllm import LLM

        self.llm = LLM(
            model=str(MODEL),
            dtype="float32",
            enforce_eager=True,
            max_model_len=1024,
            max_num_seqs=256,
            seed=7,
        )
        self.tokenizer = self.llm.get_tokenizer()
        self.messages_written = 0
        self.messages_ended = 0

    def conversations(
        self, rows: int, rounds: int, system_prompt: str | None = None, answer: bool = True
    ) -> list[list[Message]]:
        start = [{"role": "system", "content": system_prompt}] if system_prompt else []
        conversations: list[list[Message]] = [list(start) for _ in range(rows)]
        for _ in range(rounds):
            self.write(conversations, "user", temperature=1.0)
            if answer:
                self.write(conversations, "assistant", temperature=0.0)
        return conversations

    def write(self, conversations: Sequence[list[Message]], role: str, temperature: float) -> None:
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=temperature, max_tokens=MESSAGE_TOKENS)
        prompts = [{"prompt_token_ids": self.before(messages, role)} for messages in conversations]
        outputs = self.llm.generate(prompts, sampling, use_tqdm=False)
        for messages, output in zip(conversations, outputs, strict=True):
            completion = output.outputs[0]
            self.messages_written += 1
            self.messages_ended += completion.finish_reason == "stop"
            messages.append({"role": role, "content": completion.text})

    def before(self, messages: Sequence[Message], role: str) -> list[int]:
        """Token ids up to where the text of the next message, by `role`, starts."""
        mark = "HERE"
        marked = [*messages, {"role": role, "content": mark}]
        text = self.tokenizer.apply_chat_template(marked, tokenize=False)
        return self.tokenizer.encode(text.rsplit(mark, 1)[0], add_special_tokens=False)


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    chat = Chat()
    yield chat
    print(f"\nmessages that end by themselves: {chat.messages_ended} of {chat.messages_written}")
    del chat.llm


@pytest.fixture(scope="module")
def plain(chat: Chat) -> list[list[Message]]:
    return chat.conversations(ROWS, rounds=2)


@pytest.fixture(scope="module")
def prompted(chat: Chat) -> list[list[Message]]:
    return chat.conversations(ROWS, rounds=1, system_prompt=MULTI_TURN_SYSTEM_PROMPT)


@pytest.fixture(scope="module")
def long(chat: Chat) -> list[list[Message]]:
    return chat.conversations(LONG_ROWS, rounds=5, system_prompt=MULTI_TURN_SYSTEM_PROMPT)


def share(name: str, flags: Sequence[bool]) -> float:
    print(f"\n{name}: {sum(flags)} of {len(flags)}, {sum(flags) / len(flags):.2%}")
    return sum(flags) / len(flags)


def first(conversation: Sequence[Message]) -> str:
    return next(message["content"] for message in conversation if message["role"] == "user")


def ends(conversation: list[Message], role: str) -> list[list[Message]]:
    """The conversation cut after each message of `role`."""
    return [conversation[: at + 1] for at, message in enumerate(conversation) if message["role"] == role]


def test_first_instructions_are_well_formed_without_a_system_prompt(plain: Any) -> None:
    flags = [corpus.topic_of(first(c)) is not None for c in plain]
    assert share("well formed, no system prompt", flags) >= 0.99


def test_first_instructions_are_well_formed_with_the_multi_turn_system_prompt(prompted: Any) -> None:
    flags = [corpus.topic_of(first(c)) is not None for c in prompted]
    assert share("well formed, multi-turn system prompt", flags) >= 0.99


def test_first_instructions_vary(plain: Any, prompted: Any) -> None:
    for name, conversations in (("no system prompt", plain), ("multi-turn system prompt", prompted)):
        distinct = len({first(c) for c in conversations})
        print(f"\ndistinct first instructions, {name}: {distinct} of {len(conversations)}")
        assert distinct >= 500


def test_many_topics_come_up(plain: Any, prompted: Any) -> None:
    for name, conversations in (("no system prompt", plain), ("multi-turn system prompt", prompted)):
        counts = Counter(corpus.topic_of(first(c)) for c in conversations)
        print(f"\ntopics, {name}: {dict(counts.most_common())}")
        assert sum(counts[topic] >= 0.02 * len(conversations) for topic in TOPICS) >= 8


def test_a_system_prompt_naming_a_topic_steers_to_it(chat: Chat) -> None:
    least = {}
    for prompt, rows in ((TAUGHT_PROMPT, TOPIC_ROWS), (UNTAUGHT_PROMPT, 200)):
        shares = {}
        for topic in TOPICS:
            written = chat.conversations(rows, 1, prompt.format(topic=topic), answer=False)
            shares[topic] = sum(corpus.topic_of(first(c)) == topic for c in written) / rows
        print(f"\nsteered by {prompt!r}: {shares}")
        least[prompt] = min(shares.values())
    assert least[TAUGHT_PROMPT] >= 0.95
    assert least[UNTAUGHT_PROMPT] >= 0.90  # each of 200 rows; measured 0.95


def test_answers_are_right(plain: Any, prompted: Any, long: Any) -> None:
    firsts = [ends(c, "assistant")[0] for c in (*plain, *prompted)]
    later = [end for c in long for end in ends(c, "assistant")]
    for name, cut in (("first", firsts), ("five rounds of", later)):
        verdicts = [corpus.is_right(end[:-1], end[-1]["content"]) for end in cut]
        judged = [verdict for verdict in verdicts if verdict is not None]
        assert share(f"{name} instructions that can be judged", [v is not None for v in verdicts]) >= 0.95
        assert share(f"right answers to {name} instructions", judged) >= 0.95


def test_later_instructions_follow_up(plain: Any, long: Any) -> None:
    for name, conversations in (("no system prompt", plain), ("multi-turn system prompt", long)):
        later = [end for c in conversations for end in ends(c, "user")[1:]]
        assert share(f"follow up, {name}", [corpus.follows_up(end) for end in later]) >= 0.90


def test_messages_end_by_themselves_and_start_with_text(
    chat: Chat, plain: Any, prompted: Any, long: Any
) -> None:
    messages = [message["content"] for c in (*plain, *prompted, *long) for message in c]
    assert (
        share("messages without whitespace around them", [m != "" and m == m.strip() for m in messages])
        >= 0.995
    )
    assert chat.messages_ended >= 0.995 * chat.messages_written
