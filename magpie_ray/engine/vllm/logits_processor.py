"""First tokens in vLLM: a logits processor, installed when an engine starts if any message needs it.

Only vLLM imports this module, by name, in the process that samples. The processor is one of model runner V1,
which vLLM's CPU build has and which the environment selects for engines with first tokens. Invariants: a row
of the batch is edited until its first tokens are decoded, and forgotten then; a message's tokens so far come
from vLLM's own list, so that a preempted request continues where it was. That list is complete only while
logits are processed: with asynchronous scheduling its last token is a placeholder before.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from magpie_ray.config.sampling import FirstTokens
from magpie_ray.engine.first_tokens import START, FirstTokenTable
from magpie_ray.engine.token_bytes import TokenBytes, token_bytes
from magpie_ray.engine.vllm.args import FIRST_TOKENS_ARGUMENT
from magpie_ray.model.tokenizer import load_tokenizer

_GREEDY = 1e-5  # as in vLLM, a lower temperature means greedy
_SMALLEST = 1e-30
_STRIDE = 0x9E3779B97F4A7C15  # odd, so that seeds of neighbouring tokens are far apart


@dataclass(slots=True)
class _Rules:
    """Rules, their table, and the parts of the table that are on the device so far."""

    table: FirstTokenTable
    temperature: float | None
    count: int
    on_device: dict[bytes, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=dict)


@dataclass(slots=True)
class _Row:
    """A request whose first tokens are being decoded.

    written: vLLM's list of its tokens. The first `read` of them led to `beginning`, which is None when no ban
    or penalty applies any more.
    """

    rules: _Rules
    temperature: float
    seed: int | None
    written: list[int]
    read: int = 0
    beginning: bytes | None = START

    def catch_up(self) -> None:
        """Read the new tokens of `written`."""
        while self.beginning is not None and self.read < len(self.written):
            self.beginning = self.rules.table.after(self.beginning, self.written[self.read])
            self.read += 1

    @property
    def is_heated(self) -> bool:
        return self.rules.temperature is not None and len(self.written) < self.rules.count

    @property
    def first_temperature(self) -> float:
        """The rules' temperature. Only for rows that are heated."""
        assert self.rules.temperature is not None
        return self.rules.temperature


class FirstTokensProcessor(LogitsProcessor):  # type: ignore[misc]
    """Applies bans, penalties and temperatures of first tokens to the requests that carry rules.

    vLLM applies the request's own temperature afterwards, so logits are scaled by the quotient of the two.
    For a greedy request Gumbel noise of the rules' temperature is added: the most likely token is then a
    sample. A seeded request draws the noise from its seed and the token's position.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        model = vllm_config.model_config
        tokenizer = load_tokenizer(
            model.tokenizer, revision=model.tokenizer_revision, trust_remote_code=model.trust_remote_code
        ).tokenizer
        vocabulary = token_bytes(tokenizer)
        pieces = vocabulary.pieces[: model.get_vocab_size()]
        self._vocabulary = TokenBytes(pieces=pieces, is_exact=vocabulary.is_exact)
        self._device = device
        self._pins = is_pin_memory
        self._rules: dict[tuple[str, tuple[int, ...]], _Rules] = {}
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._rows, batch_update, self._new_row)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        if not self._rows:
            return logits
        by_beginning: dict[tuple[int, bytes], tuple[_Rules, list[int]]] = {}
        heated: dict[int, _Row] = {}
        for index, row in list(self._rows.items()):
            row.catch_up()
            if row.is_heated:
                heated[index] = row
            elif row.beginning is None:
                del self._rows[index]
            if row.beginning is not None:
                by_beginning.setdefault((id(row.rules), row.beginning), (row.rules, []))[1].append(index)
        for (_, beginning), (rules, indices) in by_beginning.items():
            self._edit(logits, indices, rules, beginning)
        self._heat(logits, heated)
        return logits

    def _new_row(self, params: Any, _: list[int] | None, written: list[int]) -> _Row | None:
        text = (params.extra_args or {}).get(FIRST_TOKENS_ARGUMENT)
        if text is None:
            return None
        ends = tuple(params.stop_token_ids or ())
        rules = self._rules.get((text, ends))
        if rules is None:
            settings = FirstTokens.model_validate_json(text)
            table = FirstTokenTable(settings, self._vocabulary, ends=ends)
            rules = _Rules(table=table, temperature=settings.temperature, count=settings.count)
            self._rules[text, ends] = rules
        return _Row(rules=rules, temperature=params.temperature, seed=params.seed, written=written)

    def _edit(self, logits: torch.Tensor, indices: list[int], rules: _Rules, beginning: bytes) -> None:
        """Apply the bans and penalties of one beginning to the rows that have it."""
        parts = rules.on_device.get(beginning)
        if parts is None:
            following = rules.table[beginning]
            parts = rules.on_device[beginning] = (
                self._tensor(following.banned, torch.int64),
                self._tensor(tuple(following.penalties), torch.int64),
                self._tensor(tuple(following.penalties.values()), torch.float32),
            )
        banned, penalised, penalties = parts
        if not len(banned) and not len(penalised):
            return
        rows = self._tensor(indices, torch.int64).unsqueeze(1)
        if len(penalised):
            logits[rows, penalised] -= penalties
        if len(banned):
            logits[rows, banned] = -torch.inf

    def _heat(self, logits: torch.Tensor, heated: dict[int, _Row]) -> None:
        scaled = {index: row for index, row in heated.items() if row.temperature >= _GREEDY}
        if scaled:
            factors = [row.temperature / row.first_temperature for row in scaled.values()]
            rows = self._tensor(list(scaled), torch.int64)
            logits[rows] *= self._tensor(factors, torch.float32).unsqueeze(1)
        for index, row in heated.items():
            if index not in scaled:
                logits[index] += self._noise(logits.shape[1], row)

    def _noise(self, size: int, row: _Row) -> torch.Tensor:
        generator = None
        if row.seed is not None:
            generator = torch.Generator(device=self._device)
            generator.manual_seed((row.seed + (len(row.written) + 1) * _STRIDE) % 2**63)
        draws = torch.empty(size, dtype=torch.float32, device=self._device).exponential_(generator=generator)
        return draws.clamp_min_(_SMALLEST).log_().mul_(-row.first_temperature)

    def _tensor(self, values: Any, dtype: torch.dtype) -> torch.Tensor:
        # From pinned memory, so that the copy to a GPU is asynchronous.
        return torch.tensor(values, dtype=dtype, pin_memory=self._pins).to(self._device, non_blocking=True)
