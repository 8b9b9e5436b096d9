"""An engine in virtual time: no model, but vLLM's scheduling, its KV cache and a cost for each step.

Each step decodes one token for every running request. Prompts are prefilled in chunks of the step's remaining
token budget, except for the part that the cache holds. Requests beyond `max_num_seqs`, or without room in the
cache, wait in order. When running requests outgrow the cache, the last to start is preempted and prefilled
again. The caller's function answers a request; the length of the answer decides in which step the request
ends. A step takes real time in proportion to the requests that begin and end in it, not to the requests that
run.
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import Completion, EngineFigures, Request
from magpie_ray.engine.simulated.kv_cache import BLOCK_TOKENS, BlockCache, block_hashes
from magpie_ray.engine.step_cost import UNIT_COST, StepCost
from magpie_ray.errors import EngineError
from magpie_ray.types import FinishReason

Answer = tuple[list[int], FinishReason]


@dataclass(slots=True, eq=False)
class _Sequence:
    """A request from `submit` to its completion.

    num_tokens: of the answer, the ending included; `written` of them before a preemption. hashes: of its full
    blocks; others may use the first `shared` of all its `blocks`. unread: tokens still to prefill.
    since: the step of the first token after its start; length: of its context then; ends: the step of its
    last token.
    """

    request: Request
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason = "stop"
    num_tokens: int = 0
    written: int = 0
    hashes: list[int] = field(default_factory=list)
    shared: int = 0
    blocks: int = 0
    unread: int = 0
    since: int = 0
    length: int = 0
    ends: int = 0


class SimulatedEngine:
    """Answers each request with `respond(request)` after one step per token and one for the ending.

    As in vLLM, an answer is cut where it exceeds max_tokens or the context with its ending. cost: of a step,
    in virtual `seconds`. max_num_batched_tokens: limit of tokens prefilled and decoded in one step.
    EngineError when the cache can't hold a whole context, as in vLLM.
    """

    def __init__(
        self,
        respond: Callable[[Request], Answer],
        *,
        figures: EngineFigures,
        cost: StepCost = UNIT_COST,
        max_num_batched_tokens: int = 8192,
    ) -> None:
        self._respond = respond
        self._figures = figures
        self._cost = cost
        self._budget = max_num_batched_tokens
        blocks = figures.kv_cache_tokens // BLOCK_TOKENS
        if blocks * BLOCK_TOKENS < figures.max_model_len:
            raise EngineError(f"{blocks * BLOCK_TOKENS} tokens of KV cache hold no context of {figures}")
        self._cache = BlockCache(blocks)
        self._blocks = blocks
        self._waiting: deque[_Sequence] = deque()
        self._running: dict[int, _Sequence] = {}  # by request_id, in the order of their start
        self._reading: dict[int, _Sequence] = {}  # those of them that are not prefilled yet
        self._endings: list[tuple[int, int, _Sequence]] = []
        self._order = 0
        # Decoding sequences by the step, modulo the size of a block, in which they need another block.
        self._fills = [0] * BLOCK_TOKENS
        self._context = 0  # tokens of all decoding sequences
        self._counts = Counter[str]()
        self._refreshed = 0  # since the last step
        self.seconds = 0.0

    @property
    def figures(self) -> EngineFigures:
        return self._figures

    @property
    def outstanding(self) -> int:
        return len(self._waiting) + len(self._running)

    def submit(self, request: Request) -> None:
        """Queue a request. EngineError when its prompt fills the context, as in vLLM."""
        if len(request.prompt_token_ids) >= self._figures.max_model_len:
            raise EngineError(
                f"a prompt of {len(request.prompt_token_ids)} tokens does not fit engine.max_model_len "
                f"{self._figures.max_model_len}"
            )
        self._waiting.append(_Sequence(request))

    def refresh(self, token_ids: list[int]) -> None:
        """Like a vLLM request for one token after the last full block: only that token is prefilled."""
        cut = (len(token_ids) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        hashes = block_hashes(token_ids[:cut])
        if self._cache.find(hashes) == len(hashes):
            self._cache.touch(hashes)
            self._refreshed += 1

    def step(self) -> list[Completion]:
        """Decode one token for every running request; return those that ended, in order of their start."""
        assert self.outstanding, "step() without anything outstanding"
        now = self._counts["steps"] + 1
        preempted = self._make_room(now)
        writing = len(self._running) - len(self._reading)
        budget = self._budget - writing
        if not preempted:
            self._admit(budget - sum(s.unread for s in self._reading.values()))
        self._context += writing
        context = self._context
        read, read_context = self._read(budget, now)
        tokens = writing + read + self._refreshed
        self.seconds += self._cost.seconds(tokens=tokens, context_tokens=context + read_context)
        self._refreshed = 0
        running = len(self._running)
        counts = self._counts
        counts["steps"] += 1
        counts["running"] += running
        counts["kv_used_tokens"] += (self._blocks - self._cache.available) * BLOCK_TOKENS
        counts["generated_tokens"] += running - len(self._reading)
        return self._end(now)

    def _make_room(self, now: int) -> bool:
        """Take a block for each decoding sequence that has filled one. True if any request was preempted."""
        preempted = False
        while not self._cache.take(self._fills[now % BLOCK_TOKENS]):
            _, last = self._running.popitem()
            self._stop(last, now)
            self._waiting.appendleft(last)
            self._counts["preemptions"] += 1
            preempted = True
        return preempted

    def _admit(self, budget: int) -> None:
        """Start waiting requests in order while there are slots, room in the cache and token budget."""
        while self._waiting and len(self._running) < self._figures.max_num_seqs and budget > 0:
            sequence = self._waiting[0]
            if not self._start(sequence):
                break
            # As in vLLM, what this step reads is there for those that start behind it.
            self._share(sequence, unread=max(0, sequence.unread - budget))
            budget -= sequence.unread
            self._waiting.popleft()
        assert self._running, "the cache holds any one sequence"

    def _start(self, sequence: _Sequence) -> bool:
        """Find the sequence's blocks in the cache and take blocks for the rest. False if too few are left."""
        request, cache = sequence.request, self._cache
        length = len(request.prompt_token_ids) + sequence.written
        if not sequence.hashes:
            sequence.hashes = block_hashes(request.prompt_token_ids)
        # The last token is always prefilled: its output is the next token.
        known = sequence.hashes[: (length - 1) // BLOCK_TOKENS]
        found = cache.find(known)
        if not cache.use_and_take(known[:found], -(-length // BLOCK_TOKENS) - found):
            return False
        if sequence.num_tokens == 0:
            self._answer(sequence)
            self._counts["prompt_tokens"] += length
            self._counts["cached_tokens"] += found * BLOCK_TOKENS
        else:
            self._counts["recomputed_tokens"] += length - found * BLOCK_TOKENS
        sequence.shared, sequence.blocks = found, -(-length // BLOCK_TOKENS)
        sequence.unread = length - found * BLOCK_TOKENS
        self._running[request.request_id] = self._reading[request.request_id] = sequence
        return True

    def _answer(self, sequence: _Sequence) -> None:
        request = sequence.request
        ids, reason = self._respond(request)
        room = self._figures.max_model_len - len(request.prompt_token_ids)
        allowed = min(request.sampling.settings.max_tokens, room)
        tokens = len(ids) + (reason == "stop")
        if tokens > allowed:
            ids, reason, tokens = ids[:allowed], "length", allowed
        sequence.token_ids, sequence.finish_reason, sequence.num_tokens = ids, reason, tokens

    def _read(self, budget: int, now: int) -> tuple[int, int]:
        """Prefill prompts in order; their sequences decode from then on. Returns tokens and their context."""
        total = context = 0
        for sequence in list(self._reading.values()):
            chunk = min(sequence.unread, budget - total)
            if chunk <= 0:
                break
            sequence.unread -= chunk
            self._share(sequence, unread=sequence.unread)
            total += chunk
            length = len(sequence.request.prompt_token_ids) + sequence.written
            context += length - sequence.unread
            if not sequence.unread:
                del self._reading[sequence.request.request_id]
                self._write(sequence, length, now)
        return total, context

    def _share(self, sequence: _Sequence, *, unread: int) -> None:
        """Others may use the blocks that are full once so many tokens are left to prefill."""
        full = (len(sequence.request.prompt_token_ids) + sequence.written - unread) // BLOCK_TOKENS
        sequence.shared += self._cache.share(sequence.hashes[sequence.shared : full])

    def _write(self, sequence: _Sequence, length: int, now: int) -> None:
        """From this step on the sequence decodes a token a step."""
        sequence.since, sequence.length = now, length
        sequence.ends = now + sequence.num_tokens - sequence.written - 1
        heapq.heappush(self._endings, (sequence.ends, self._order, sequence))
        self._order += 1
        self._fills[self._fill_of(sequence)] += 1
        self._context += length

    @staticmethod
    def _fill_of(sequence: _Sequence) -> int:
        return (sequence.since + 1 - sequence.length) % BLOCK_TOKENS

    def _stop(self, sequence: _Sequence, now: int) -> None:
        """Give back the blocks of a sequence just removed from `running`, before step `now`."""
        request = sequence.request
        prompt = len(request.prompt_token_ids)
        if self._reading.pop(request.request_id, None):
            computed = prompt + sequence.written - sequence.unread
            blocks = sequence.blocks
        else:
            steps = now - 1 - sequence.since  # in which the cache grew
            self._fills[self._fill_of(sequence)] -= 1
            self._context -= sequence.length + steps
            computed = sequence.length + steps
            blocks = -(-computed // BLOCK_TOKENS)
            sequence.ends = 0
            sequence.written = min(sequence.written + steps + 1, sequence.num_tokens)
        full = computed // BLOCK_TOKENS
        if full > len(sequence.hashes):
            ids = [*request.prompt_token_ids, *sequence.token_ids[: computed - prompt]]
            sequence.hashes = block_hashes(ids, sequence.hashes)
        self._cache.give_back(sequence.hashes[:full], shared=sequence.shared, blocks=blocks)

    def _end(self, now: int) -> list[Completion]:
        """The sequences whose last token this step decoded."""
        completions = []
        while self._endings and self._endings[0][0] <= now:
            _, _, sequence = heapq.heappop(self._endings)
            request_id = sequence.request.request_id
            if sequence.ends != now or self._running.get(request_id) is not sequence:
                continue  # preempted or aborted since
            del self._running[request_id]
            self._stop(sequence, now + 1)
            completions.append(
                Completion(
                    request_id=request_id,
                    token_ids=sequence.token_ids,
                    finish_reason=sequence.finish_reason,
                    num_tokens=sequence.num_tokens,
                )
            )
        return completions

    def abort(self, request_ids: Collection[int]) -> None:
        """Drop outstanding requests; their slots are free at once."""
        self._waiting = deque(s for s in self._waiting if s.request.request_id not in request_ids)
        for request_id in request_ids:
            if sequence := self._running.pop(request_id, None):
                self._stop(sequence, self._counts["steps"] + 1)

    def stats(self) -> EngineStats:
        steps, figures = self._counts["steps"], self._figures
        return EngineStats(
            **self._counts, slots=steps * figures.max_num_seqs, kv_tokens=steps * figures.kv_cache_tokens
        )

    def close(self) -> None:
        self._waiting.clear()
        self.abort(list(self._running))
