"""First tokens as requests of their own: the message is what one request with the rules would give."""

import math
import random
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.config.sampling import FirstTokens, SamplingSettings
from magpie_ray.counters import EngineStats
from magpie_ray.engine.first_tokens import START, FirstTokenTable
from magpie_ray.engine.message_heads import FirstTokensEngine
from magpie_ray.engine.protocol import Completion, EngineFigures, Request, Sampling
from magpie_ray.engine.simulated.engine import SimulatedEngine
from magpie_ray.engine.token_bytes import TokenBytes
from tests.support.held import growth, held_by

END, SPECIAL = 0, 1
PIECES = [b"<end>", None, b"a", b"b", b"#", b" ", b"ab", b"##", b" #", b"\xc3", b"\xa9", b"\xc3\xa9", b"a#"]
VOCABULARY = TokenBytes(pieces=[*PIECES], is_exact=True)
PROMPT = [3, 3, 3]

beginnings = st.sampled_from(["#", "##", "a", "ab", "aba", "b#", "é", "a#b"])
sampled_rules = st.builds(
    FirstTokens,
    ban=st.lists(beginnings, max_size=3),
    penalties=st.dictionaries(beginnings, st.sampled_from([-3.0, 0.5, 3.0]), max_size=2),
    temperature=st.sampled_from([None, 0.5, 2.0]),
    count=st.integers(1, 4),
)


class Model:
    """An engine whose message is a function of the tokens before it. It answers every request in one step.

    The most likely token wins. Its logits depend on the text so far, and heat turns their order around.
    """

    figures = EngineFigures(max_num_seqs=8, kv_cache_tokens=1000, max_model_len=16)

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.received: list[Request] = []
        self._waiting: dict[int, Request] = {}

    @property
    def outstanding(self) -> int:
        return len(self._waiting)

    def submit(self, request: Request) -> None:
        assert request.request_id not in self._waiting
        self.received.append(request)
        self._waiting[request.request_id] = request

    def logits(self, prompt: list[int], temperature: float) -> list[float]:
        draw = random.Random(f"{self.seed} {prompt} {temperature}")
        return [draw.gauss(0.0, 2.0) for _ in PIECES]

    def answer(self, request: Request) -> Completion:
        sampling = request.sampling
        room = self.figures.max_model_len - len(request.prompt_token_ids)
        assert room > 0
        ids = list[int]()
        while len(ids) < min(sampling.settings.max_tokens, room):
            logits = self.logits([*request.prompt_token_ids, *ids], sampling.settings.temperature)
            for token_id, bias in sampling.logit_biases.items():
                logits[token_id] += bias
            ids.append(max(range(len(PIECES)), key=logits.__getitem__))
            if (kept := ended(ids, sampling)) is not None:
                return completed(request, ids, kept)
        return completed(request, ids)

    def step(self) -> list[Completion]:
        waiting, self._waiting = self._waiting, {}
        return [self.answer(request) for request in waiting.values()]

    def refresh(self, token_ids: list[int]) -> None:
        raise AssertionError

    def abort(self, request_ids: Collection[int]) -> None:
        for request_id in request_ids:
            del self._waiting[request_id]

    def stats(self) -> EngineStats:
        return EngineStats(prompt_tokens=sum(len(request.prompt_token_ids) for request in self.received))

    def close(self) -> None:
        pass


class OneWord(Model):
    """Says "bbbb"."""

    def logits(self, prompt: list[int], temperature: float) -> list[float]:
        return [float(piece == b"b") for piece in PIECES]


def written(ids: list[int]) -> bytes:
    return b"".join(PIECES[token_id] or b"\0" for token_id in ids)


def ended(ids: list[int], sampling: Sampling) -> int | None:
    """How many tokens are kept of a message that its last token has ended."""
    if ids[-1] in sampling.stop_token_ids:
        return len(ids) - 1
    stops = [stop.encode() for stop in sampling.stop_strings]
    found = [written(ids).index(stop) for stop in stops if stop in written(ids)]
    if not found:
        return None
    return max(kept for kept in range(len(ids)) if len(written(ids[:kept])) <= min(found))


def completed(request: Request, ids: list[int], kept: int | None = None) -> Completion:
    """What the engine gives for these tokens, of which `kept` stand before a stop; None: at the limit."""
    return Completion(
        request_id=request.request_id,
        token_ids=ids[:kept],
        finish_reason="length" if kept is None else "stop",
        num_tokens=len(ids),
    )


def with_rules(model: Model, request: Request) -> Completion:
    """The same by an engine that knows the rules: token by token, with the biases and heat of each."""
    sampling, rules = request.sampling, request.sampling.settings.first_tokens
    table = FirstTokenTable(rules, VOCABULARY, ends=sampling.stop_token_ids)
    beginning: bytes | None = START
    ids = list[int]()
    room = model.figures.max_model_len - len(request.prompt_token_ids)
    while len(ids) < min(sampling.settings.max_tokens, room):
        is_hot = rules.temperature is not None and len(ids) < rules.count
        heat = rules.temperature if is_hot and rules.temperature else sampling.settings.temperature
        logits = model.logits([*request.prompt_token_ids, *ids], heat)
        if beginning is not None:
            for token_id, penalty in table[beginning].penalties.items():
                logits[token_id] -= penalty
            for token_id in table[beginning].banned:
                logits[token_id] = -math.inf
        ids.append(max(range(len(PIECES)), key=logits.__getitem__))
        beginning = table.after(beginning, ids[-1]) if beginning is not None else None
        if (kept := ended(ids, sampling)) is not None:
            return completed(request, ids, kept)
    return completed(request, ids)


def request_of(
    rules: FirstTokens,
    *,
    number: int = 0,
    max_tokens: int = 8,
    prompt: int = 3,
    stop_strings: tuple[str, ...] = (),
    seed: int | None = None,
) -> Request:
    sampling = Sampling(
        settings=SamplingSettings(max_tokens=max_tokens, first_tokens=rules),
        stop_token_ids=(END,),
        stop_strings=stop_strings,
    )
    return Request(request_id=number, prompt_token_ids=PROMPT[:1] * prompt, sampling=sampling, seed=seed)


def drained(engine: FirstTokensEngine) -> list[Completion]:
    found = []
    while engine.outstanding:
        found += engine.step()
    return found


@given(
    rules=sampled_rules,
    max_tokens=st.integers(1, 9),
    prompt=st.integers(1, 15),
    stop_strings=st.lists(st.sampled_from(["##", "#a", "éb", "ab#", "b"]), max_size=2).map(tuple),
    seed=st.integers(0, 10_000),
)
def test_a_message_is_what_one_request_with_the_rules_would_give(
    rules: FirstTokens, max_tokens: int, prompt: int, stop_strings: tuple[str, ...], seed: int
) -> None:
    request = request_of(rules, max_tokens=max_tokens, prompt=prompt, stop_strings=stop_strings)
    model = Model(seed)
    engine = FirstTokensEngine(model, VOCABULARY)
    engine.submit(request)
    assert drained(engine) == [with_rules(model, request)]


def test_only_tokens_under_a_rule_are_asked_for_apart() -> None:
    def tokens_asked_for(rules: FirstTokens) -> list[int]:
        model = OneWord(0)
        engine = FirstTokensEngine(model, VOCABULARY)
        engine.submit(request_of(rules))
        [completion] = drained(engine)
        assert completion.num_tokens == 8
        return [request.sampling.settings.max_tokens for request in model.received]

    assert tokens_asked_for(FirstTokens()) == [8]
    assert tokens_asked_for(FirstTokens(ban=["##"])) == [1, 7]
    assert tokens_asked_for(FirstTokens(temperature=2.0, count=3)) == [3, 5]
    assert tokens_asked_for(FirstTokens(ban=["##"], temperature=1.0, count=3)) == [1, 2, 5]
    assert tokens_asked_for(FirstTokens(temperature=2.0, count=9)) == [8]


@pytest.mark.parametrize("max_biases", [0, 1, 2])
def test_a_banned_token_without_a_bias_is_drawn_again(max_biases: int) -> None:
    class Drawing(Model):
        """Draws a token instead of taking the most likely one."""

        def logits(self, prompt: list[int], temperature: float) -> list[float]:
            draw = random.Random(len(self.received))
            return [draw.gauss(0.0, 2.0) for _ in PIECES]

    redrawn = 0
    for seed in range(60):
        model = Drawing(seed)
        model.received = [request_of(FirstTokens())] * seed
        engine = FirstTokensEngine(model, VOCABULARY, max_biases=max_biases)
        engine.submit(request_of(FirstTokens(ban=["#", "a"])))
        [completion] = drained(engine)
        assert not written(completion.token_ids).lstrip().startswith((b"#", b"a"))
        firsts = [r for r in model.received[seed:] if r.prompt_token_ids == PROMPT]
        assert all(len(r.sampling.logit_biases) <= max_biases for r in firsts)
        redrawn += len(firsts) - 1
    assert redrawn > 20


def test_with_room_for_a_bias_even_a_greedy_message_gets_past_its_bans() -> None:
    for seed in range(50):
        model = Model(seed)
        engine = FirstTokensEngine(model, VOCABULARY, max_biases=9)
        request = request_of(FirstTokens(ban=["#", "a", "b"]))
        engine.submit(request)
        assert drained(engine) == [with_rules(model, request)]


def test_a_message_that_can_draw_nothing_but_banned_tokens_comes_out_empty() -> None:
    model = next(m for m in map(Model, range(99)) if m.logits(PROMPT, 1.0)[2] == max(m.logits(PROMPT, 1.0)))
    engine = FirstTokensEngine(model, VOCABULARY, max_biases=0)
    engine.submit(request_of(FirstTokens(ban=["a"])))
    [completion] = drained(engine)
    assert (completion.token_ids, completion.finish_reason) == ([], "stop")


def test_first_tokens_are_no_hotter_than_an_engine_takes() -> None:
    model = Model(1)
    FirstTokensEngine(model, VOCABULARY).submit(request_of(FirstTokens(temperature=3.0)))
    assert model.received[0].sampling.settings.temperature == 2.0


def test_penalties_come_before_bans_where_biases_are_few() -> None:
    model = Model(1)
    engine = FirstTokensEngine(model, VOCABULARY, max_biases=2)
    engine.submit(request_of(FirstTokens(ban=["#"], penalties={"b": 1.5})))
    assert model.received[0].sampling.logit_biases == {3: -1.5, 4: -math.inf}


def test_every_request_of_a_seeded_message_has_a_seed_of_its_own() -> None:
    model = OneWord(0)
    engine = FirstTokensEngine(model, VOCABULARY)
    engine.submit(request_of(FirstTokens(ban=["##"], temperature=1.0), seed=2**63 - 1))
    drained(engine)
    seeds = [request.seed for request in model.received]
    assert seeds[0] == 2**63 - 1
    assert len(set(seeds)) == 3
    assert all(seed is not None and 0 <= seed < 2**63 for seed in seeds)


def test_aborted_messages_never_come_out() -> None:
    engine = FirstTokensEngine(OneWord(0), VOCABULARY)
    for number in range(4):
        engine.submit(request_of(FirstTokens(ban=["##"]) if number % 2 else FirstTokens(), number=number))
    first = {completion.request_id for completion in engine.step()}
    engine.abort([1])
    assert engine.outstanding == 1
    assert first | {completion.request_id for completion in drained(engine)} == {0, 2, 3}


def test_nothing_of_ended_messages_is_remembered() -> None:
    model = Model(0)
    engine, rules = FirstTokensEngine(model, VOCABULARY), FirstTokens(ban=["#"], temperature=2.0)
    sampling, samples = request_of(rules).sampling, []
    for number in range(4_000):
        engine.submit(Request(request_id=number, prompt_token_ids=[3, 2 + number % 11], sampling=sampling))
        drained(engine)
        model.received.clear()
        if number % 400 == 0:
            samples.append(held_by(engine))
    assert growth(samples) == {}


def test_requests_for_the_rest_take_no_step_more_and_their_prompts_are_known() -> None:
    figures = EngineFigures(max_num_seqs=4, kv_cache_tokens=1000, max_model_len=200)
    prompt = [7] * 40

    def respond(request: Request) -> tuple[list[int], str]:
        return [3] * (60 - len(request.prompt_token_ids)), "stop"

    def run(rules: FirstTokens) -> tuple[list[Completion], EngineStats]:
        engine = FirstTokensEngine(
            SimulatedEngine(respond, figures=figures),  # type: ignore[arg-type]
            VOCABULARY,
        )
        sampling = Sampling(settings=SamplingSettings(first_tokens=rules))
        for number in range(4):
            engine.submit(Request(request_id=number, prompt_token_ids=prompt, sampling=sampling))
        return drained(engine), engine.stats()

    plain, before = run(FirstTokens())
    split, after = run(FirstTokens(ban=["##"]))
    assert split == plain
    assert after.steps == before.steps
    assert after.generated_tokens == before.generated_tokens
    assert before.known_tokens == 0
    assert after.known_tokens == 4 * 41
    # Whole blocks of the prompt are found; what is behind them is prefilled again.
    assert after.cached_tokens - before.cached_tokens == 4 * 32
    assert after.read_again < 4 * 41 - 4 * 32 + 1
