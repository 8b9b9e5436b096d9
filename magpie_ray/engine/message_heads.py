"""Messages with rules for their first tokens, as several requests to an engine that knows no such rules.

The head of a message is the part that the rules govern. Where a ban or a penalty may apply to the next token,
a request asks for that token alone, with the rules as its logit biases. Another request asks for the other
tokens that have a temperature of their own. The last request continues the message behind its head, most of
which the engine finds in its prefix cache. Engines take all these parameters for each request.

Invariants: the caller sees one request and one completion for the whole message; each message has exactly one
request in the engine at any time; no banned token is kept.
"""

import codecs
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate

from magpie_ray.config.fields import MAX_TEMPERATURE
from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.counters import EngineStats
from magpie_ray.engine.first_tokens import START, FirstTokenTable, NextToken
from magpie_ray.engine.protocol import Completion, Engine, EngineFigures, Request, Sampling
from magpie_ray.engine.token_bytes import TokenBytes

# The logit biases that vLLM's model runner V2 takes for a request.
MAX_BIASES = 1024
# A message whose next token is a banned one more often comes out empty.
_MAX_REDRAWS = 100
_STRIDE = 0x9E3779B97F4A7C15  # odd, so that the seeds of a message's requests are far apart
_SAMPLINGS_KEPT = 256
_NO_TEXT = b"\0"  # a special token, in a text that is searched for stop strings


@dataclass(slots=True)
class _Message:
    """A message that is being generated.

    token_ids: so far. beginning: where they lead in the table; None where no ban or penalty applies any more.
    drawn: banned tokens that the engine has drawn as the next one. requests: sent so far.
    """

    request: Request
    table: FirstTokenTable
    beginning: bytes | None
    token_ids: list[int] = field(default_factory=list)
    drawn: tuple[int, ...] = ()
    requests: int = 0

    @property
    def settings(self) -> SamplingSettings:
        return self.request.sampling.settings

    @property
    def heated(self) -> int:
        """How many of the next tokens have the rules' temperature."""
        rules = self.settings.first_tokens
        return max(0, rules.count - len(self.token_ids)) if rules.temperature is not None else 0

    @property
    def prompt(self) -> list[int]:
        """The token ids that the next request continues."""
        return [*self.request.prompt_token_ids, *self.token_ids]

    @property
    def seed(self) -> int | None:
        """The seed of the next request. No other request of the message has it."""
        seed = self.request.seed
        return None if seed is None else (seed + self.requests * _STRIDE) % 2**63

    def read(
        self, completion: Completion, vocabulary: TokenBytes, *, max_model_len: int
    ) -> Completion | None:
        """Add the completion of the last request. Returns that of the whole message if it has ended."""
        if completion.finish_reason == "length" and self.beginning is not None:
            [token_id] = completion.token_ids
            if token_id in self.table[self.beginning].banned:
                self.drawn += (token_id,)
                is_hopeless = len(self.drawn) > _MAX_REDRAWS
                return replace(completion, token_ids=[], finish_reason="stop") if is_hopeless else None
            self.beginning, self.drawn = self.table.after(self.beginning, token_id), ()
        num_tokens = len(self.token_ids) + completion.num_tokens
        self.token_ids += completion.token_ids
        whole = replace(completion, token_ids=self.token_ids, num_tokens=num_tokens)
        if (kept := self._tokens_before_stop(vocabulary)) is not None:
            return replace(whole, token_ids=self.token_ids[:kept], finish_reason="stop")
        if completion.finish_reason == "stop":
            return whole
        room = max_model_len - len(self.request.prompt_token_ids)
        return whole if num_tokens >= min(self.settings.max_tokens, room) else None

    def ends_inside_a_stop(self, vocabulary: TokenBytes) -> bool:
        """Whether the next tokens may complete a stop string, which no other request would find.

        A character of which a part is missing counts as one.
        """
        if not self.request.sampling.stop_strings:
            return False
        text = b"".join(self._pieces(vocabulary))
        stops = [stop.encode() for stop in self.request.sampling.stop_strings]
        heads = tuple(stop[:length] for stop in stops for length in range(1, len(stop)))
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        decoder.decode(text)
        return text.endswith(heads) or bool(decoder.getstate()[0])

    def _tokens_before_stop(self, vocabulary: TokenBytes) -> int | None:
        """The tokens in front of the first stop string. None without one."""
        stops = [stop.encode() for stop in self.request.sampling.stop_strings]
        pieces = self._pieces(vocabulary) if stops else []
        text = b"".join(pieces)
        if not (found := [text.index(stop) for stop in stops if stop in text]):
            return None
        return sum(end <= min(found) for end in accumulate(map(len, pieces)))

    def _pieces(self, vocabulary: TokenBytes) -> list[bytes]:
        return [vocabulary.pieces[token_id] or _NO_TEXT for token_id in self.token_ids]


class FirstTokensEngine:
    """An Engine that applies `first_tokens`, over an engine that ignores them.

    vocabulary: of the model. max_biases: the most logit biases of a request. Where the rules need more,
    penalties come first and frequent tokens before rare ones; a banned token without a bias is drawn again,
    and has one then.
    """

    def __init__(self, engine: Engine, vocabulary: TokenBytes, *, max_biases: int = MAX_BIASES) -> None:
        self._engine, self._vocabulary, self._max_biases = engine, vocabulary, max_biases
        self._tables: dict[Sampling, FirstTokenTable] = {}
        self._messages: dict[int, _Message] = {}  # by request id
        self._known_tokens = 0  # of the prompts of all requests but each message's first
        # Engines keep their own form of a Sampling, so equal ones are to be one object.
        self._sampling = lru_cache(_SAMPLINGS_KEPT)(self._make_sampling)

    @property
    def figures(self) -> EngineFigures:
        return self._engine.figures

    @property
    def outstanding(self) -> int:
        return self._engine.outstanding

    def submit(self, request: Request) -> None:
        rules = request.sampling.settings.first_tokens
        if not rules.is_active:
            self._engine.submit(request)
            return
        if (table := self._tables.get(request.sampling)) is None:
            table = FirstTokenTable(rules, self._vocabulary, ends=request.sampling.stop_token_ids)
            self._tables[request.sampling] = table
        beginning = START if rules.ban or rules.penalties else None
        self._continue(_Message(request=request, table=table, beginning=beginning))

    def refresh(self, token_ids: list[int]) -> None:
        self._engine.refresh(token_ids)

    def step(self) -> list[Completion]:
        completions = []
        for completion in self._engine.step():
            message = self._messages.pop(completion.request_id, None)
            if message is None:
                completions.append(completion)
                continue
            whole = message.read(completion, self._vocabulary, max_model_len=self.figures.max_model_len)
            if whole is not None:
                completions.append(whole)
                continue
            self._known_tokens += len(message.prompt)
            self._continue(message)
        return completions

    def abort(self, request_ids: Collection[int]) -> None:
        for request_id in request_ids:
            self._messages.pop(request_id, None)
        self._engine.abort(request_ids)

    def stats(self) -> EngineStats:
        """prompt_tokens, cached_tokens and known_tokens count a message's prompt for each of its requests."""
        stats = self._engine.stats()
        return replace(stats, known_tokens=stats.known_tokens + self._known_tokens)

    def close(self) -> None:
        self._engine.close()

    def _continue(self, message: _Message) -> None:
        """Submit the request for the message's next tokens."""
        request, heated = message.request, message.heated
        tokens = message.settings.max_tokens - len(message.token_ids)
        if message.beginning is not None or (not heated and message.ends_inside_a_stop(self._vocabulary)):
            tokens = 1
        elif heated:
            tokens = min(tokens, heated)
        sampling = self._sampling(request.sampling, message.beginning, heated > 0, tokens, message.drawn)
        self._messages[request.request_id] = message
        self._engine.submit(
            replace(request, prompt_token_ids=message.prompt, sampling=sampling, seed=message.seed)
        )
        message.requests += 1

    def _make_sampling(
        self, whole: Sampling, beginning: bytes | None, heated: bool, tokens: int, drawn: tuple[int, ...]
    ) -> Sampling:
        """How the next tokens of a message are sampled."""
        settings, rules = whole.settings, whole.settings.first_tokens
        changes: dict[str, object] = {"max_tokens": tokens}
        if heated and rules.temperature is not None:
            changes["temperature"] = min(rules.temperature, MAX_TEMPERATURE)
        biases = {} if beginning is None else self._biases(self._tables[whole][beginning], drawn)
        return replace(whole, settings=settings.model_copy(update=changes), logit_biases=biases)

    def _biases(self, rules: NextToken, drawn: tuple[int, ...]) -> Mapping[int, float]:
        again = dict.fromkeys(drawn, -math.inf)  # first: without a bias a greedy message draws them for ever
        penalties = {token_id: -rules.penalties[token_id] for token_id in sorted(rules.penalties)}
        banned = dict.fromkeys(sorted(rules.banned), -math.inf)
        ordered = [*(again | penalties | banned).items()]
        return dict(ordered[: self._max_biases])
