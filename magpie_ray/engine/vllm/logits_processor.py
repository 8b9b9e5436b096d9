"""First tokens in vLLM: a logits processor, installed when an engine starts, where any message needs it.

vLLM imports it by name, in the process in which an engine samples; nobody else does. It is one of model
runner V1, which vLLM's CPU build has and which engines with first tokens are told to take. What always holds:
a row of the batch is looked at until its first tokens are written, and forgotten then; what a message has so
far is read from vLLM's own list of its tokens (complete when logits are processed, and only then: with
asynchronous scheduling the last is a placeholder before), so that a preempted request goes on where it was.
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

_GREEDY = 1e-5  # temperatures below are none, as in vLLM
_SMALLEST = 1e-30
_STRIDE = 0x9E3779B97F4A7C15  # odd: seeds of neighbouring tokens are far apart


@dataclass(slots=True)
class _Rules:
    """Rules, their table, and its parts on the device as they are needed."""

    table: FirstTokenTable
    temperature: float | None
    count: int
    on_device: dict[bytes, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=dict)


@dataclass(slots=True)
class _Row:
    """A request whose first tokens are being written.

    written: vLLM's list of its tokens, of which `read` have led to `beginning`; None: nothing applies to it.
    """

    rules: _Rules
    temperature: float
    seed: int | None
    written: list[int]
    read: int = 0
    beginning: bytes | None = START

    def catch_up(self) -> None:
        """Read the tokens that are new in `written`."""
        while self.beginning is not None and self.read < len(self.written):
            self.beginning = self.rules.table.after(self.beginning, self.written[self.read])
            self.read += 1

    @property
    def is_heated(self) -> bool:
        return self.rules.temperature is not None and len(self.written) < self.rules.count


class FirstTokensProcessor(LogitsProcessor):  # type: ignore[misc]
    """Bans, penalties and temperatures of first tokens, for the requests that carry rules.

    The temperature is on top of the request's own: logits are scaled so that both together make it. Where the
    request is greedy, noise of that temperature decides (Gumbel's, so that the most likely token with it is a
    sample), drawn from the request's seed and the token's place where there is a seed.
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
            asked = FirstTokens.model_validate_json(text)
            table = FirstTokenTable(asked, self._vocabulary, ends=ends)
            rules = _Rules(table=table, temperature=asked.temperature, count=asked.count)
            self._rules[text, ends] = rules
        return _Row(rules=rules, temperature=params.temperature, seed=params.seed, written=written)

    def _edit(self, logits: torch.Tensor, indices: list[int], rules: _Rules, beginning: bytes) -> None:
        """Bans and penalties of the rows that have the same beginning."""
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
            factors = [row.temperature / _wanted(row) for row in scaled.values()]
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
        return draws.clamp_min_(_SMALLEST).log_().mul_(-_wanted(row))

    def _tensor(self, values: Any, dtype: torch.dtype) -> torch.Tensor:
        # Pinned, so that the copy to a GPU waits for nothing.
        return torch.tensor(values, dtype=dtype, pin_memory=self._pins).to(self._device, non_blocking=True)


def _wanted(row: _Row) -> float:
    """The temperature of its first tokens."""
    assert row.rules.temperature is not None
    return row.rules.temperature
