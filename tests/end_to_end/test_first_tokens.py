"""First tokens in real vLLM: what the bundled model begins its messages with, and with which rules.

    pytest tests/end_to_end/test_first_tokens.py -s

One engine serves all tests.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.resources import files

import pytest

from magpie_ray.config.sampling import FirstTokens, SamplingSettings
from magpie_ray.config.sections import EngineConfig
from magpie_ray.engine.message_heads import FirstTokensEngine
from magpie_ray.engine.protocol import Completion, Request, Sampling
from magpie_ray.engine.token_bytes import token_bytes
from magpie_ray.engine.vllm.args import VllmSettings
from magpie_ray.engine.vllm.engine import start_vllm
from magpie_ray.model.tokenizer import load_tokenizer

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore")]

MODEL = str(files("magpie_ray").joinpath("tiny_chat"))
PRE_QUERY = [1, 2, 1996, 3, 1908]
BLOCK, BLOCKS = 32, 80  # fewer blocks than sequences in a batch


@pytest.fixture(scope="module")
def engine() -> Iterator[FirstTokensEngine]:
    vllm = start_vllm(
        VllmSettings(
            engine=EngineConfig(
                max_model_len=64, max_num_seqs=128, extra={"num_gpu_blocks_override": BLOCKS}
            ),
            model=MODEL,
            revision=None,
            device="cpu",
            seed=1,
        )
    )
    vocabulary = token_bytes(load_tokenizer(MODEL).tokenizer)
    yield FirstTokensEngine(vllm, vocabulary.resized(vllm.vocab_size))
    vllm.close()


def drained(engine: FirstTokensEngine) -> dict[int, Completion]:
    found = {}
    while engine.outstanding:
        found |= {completion.request_id: completion for completion in engine.step()}
    return found


MESSAGES = 500


@pytest.fixture(scope="module")
def decode() -> Callable[[Completion], str]:
    tokenizer = load_tokenizer(MODEL).tokenizer
    return lambda completion: tokenizer.decode(completion.token_ids).strip()


@pytest.fixture(scope="module")
def say(engine: FirstTokensEngine, decode: Callable[[Completion], str]) -> Callable[..., list[str]]:
    """Messages, in the order in which they were asked for."""
    numbers = itertools.count()

    def said(
        count: int, rules: FirstTokens | None, *, temperature: float = 1.0, seed: int | None = None
    ) -> list[str]:
        sampling = Sampling(
            settings=SamplingSettings(
                temperature=temperature, max_tokens=6, first_tokens=rules or FirstTokens()
            )
        )
        asked = list(itertools.islice(numbers, count))
        for place, number in enumerate(asked):
            drawn_from = None if seed is None else seed + place
            request = Request(
                request_id=number, prompt_token_ids=PRE_QUERY, sampling=sampling, seed=drawn_from
            )
            engine.submit(request)
        found = drained(engine)
        return [decode(found[number]) for number in asked]

    return said


@pytest.fixture(scope="module")
def free(say: Callable[..., list[str]]) -> list[str]:
    return say(MESSAGES, None)


def starting(messages: list[str], *beginnings: str) -> int:
    return sum(message.startswith(beginnings) for message in messages)


def most_common(messages: list[str], words: int) -> list[str]:
    beginnings = Counter(" ".join(message.split()[:words]) for message in messages)
    return [beginning for beginning, _ in beginnings.most_common(2)]


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_a_banned_beginning_never_occurs(
    say: Callable[..., list[str]], free: list[str], words: int, temperature: float
) -> None:
    ban = most_common(free, words)
    print(f"\n{ban} begin {starting(free, *ban)} of {MESSAGES} messages")
    assert starting(free, *ban) > MESSAGES // 5
    rules = FirstTokens(ban=list(ban))
    greedy = most_common(say(1, None, temperature=0.0), words)
    banned = say(MESSAGES, rules) if temperature else say(5, FirstTokens(ban=list(greedy)), temperature=0.0)
    assert starting(banned, *(ban if temperature else greedy)) == 0
    assert all(banned)


def test_part_of_a_word_is_banned_in_the_middle_of_a_token_and_across_tokens(
    say: Callable[..., list[str]], free: list[str]
) -> None:
    word, words = most_common(free, 1)[0], most_common(free, 2)[0]
    for ban in (word[:2], words[:-1]):
        assert starting(free, ban)
        assert starting(say(MESSAGES, FirstTokens(ban=[ban])), ban) == 0


def test_a_penalty_makes_a_beginning_rare_by_its_size(say: Callable[..., list[str]], free: list[str]) -> None:
    word = most_common(free, 1)[0]
    share = starting(free, word) / MESSAGES
    rare = starting(say(MESSAGES, FirstTokens(penalties={word: 1.5})), word) / MESSAGES
    expected = share / (share + (1 - share) * math.exp(1.5))
    print(f"\n{word!r} begins {share:.1%} of messages, penalised by 1.5 {rare:.1%} ({expected:.1%} expected)")
    assert rare == pytest.approx(expected, abs=0.06)
    assert starting(say(50, FirstTokens(penalties={word: -20.0})), word) == 50


def test_a_temperature_of_the_first_token_varies_beginnings(
    say: Callable[..., list[str]], free: list[str]
) -> None:
    hot = say(MESSAGES, FirstTokens(temperature=2.0, count=1))
    greedy = say(MESSAGES, FirstTokens(temperature=2.0, count=1), temperature=0.0)
    plain, first, then_greedy = (len({m.split()[0] for m in said if m}) for said in (free, hot, greedy))
    print(
        f"\ndistinct first words of {MESSAGES}: {plain}, at temperature 2 {first}, greedy after {then_greedy}"
    )
    assert min(first, then_greedy) > 1.5 * plain
    # After the first token such messages are greedy: that token decides the rest.
    assert len(set(greedy)) <= then_greedy + 5


def test_the_temperature_of_a_first_token_is_what_it_would_be_of_all(say: Callable[..., list[str]]) -> None:
    shares = []
    for rules, temperature in (
        (None, 0.5),
        (FirstTokens(temperature=0.5, count=8), 1.3),
        (FirstTokens(temperature=0.5, count=8), 0.0),
    ):
        said = say(MESSAGES, rules, temperature=temperature)
        shares.append(Counter(message.split()[0] for message in said))
    for word, count in shares[0].most_common(3):
        assert [s[word] / MESSAGES for s in shares[1:]] == pytest.approx([count / MESSAGES] * 2, abs=0.1)


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_a_seed_gives_the_same_message_with_any_rules(
    say: Callable[..., list[str]], temperature: float
) -> None:
    rules = FirstTokens(ban=["What"], penalties={"Can": 1.0}, temperature=1.5, count=2)
    once = say(30, rules, temperature=temperature, seed=7)
    assert say(30, rules, temperature=temperature, seed=7) == once
    # Alone in the batch, and behind others.
    assert [say(1, rules, temperature=temperature, seed=7 + place)[0] for place in range(5)] == once[:5]
    assert say(30, rules, temperature=temperature, seed=70) != once
    assert len(set(once)) > 5


def test_a_ban_outlives_preemption(engine: FirstTokensEngine, decode: Callable[[Completion], str]) -> None:
    ban = ("What is the", "Tell me", "Can you tell", "Please tell", "Do you know")
    counts = []
    for rules in (None, FirstTokens(ban=list(ban))):
        before = engine.stats().preemptions
        sampling = Sampling(settings=SamplingSettings(max_tokens=8, first_tokens=rules or FirstTokens()))
        # Two tokens on, each needs another block.
        prompt = (PRE_QUERY * BLOCK)[2 - BLOCK :]
        for number in range(2 * BLOCKS):
            number += 100_000 * (1 + len(counts))
            engine.submit(Request(request_id=number, prompt_token_ids=prompt, sampling=sampling))
        messages = [decode(completion) for completion in drained(engine).values()]
        assert engine.stats().preemptions - before >= BLOCKS // 4
        counts.append(starting(messages, *ban))
    print(f"\n{ban} begin {counts[0]} of {2 * BLOCKS} messages, banned {counts[1]}")
    assert counts[0] > BLOCKS // 4
    assert counts[1] == 0
