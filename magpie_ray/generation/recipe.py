"""The recipe of a build's rows: all that decides their content, whatever engine makes them.

Plain values; worker.parts makes them from a build spec.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from magpie_ray import draws
from magpie_ray.acceptance import Rule
from magpie_ray.chat_format.format import Reasoning, SystemPrefix
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.engine.protocol import Sampling
from magpie_ray.types import Input, Message, Role, SystemPrompt


class Format(Protocol):
    """The part of a ChatFormat that generation needs."""

    def prefix(self, system_prompt: str | None) -> tuple[int, ...]: ...

    def prompt(self, prefix: Any, messages: Sequence[Sequence[int]]) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Start:
    """What a row starts with.

    prefix: everything before the first user message, as token ids. known_as: the same for
    `ChatFormat.prompt` where the format was not derived with this system prompt. input: None where the build
    has no inputs. given, given_ids: the messages that a source gives, as text and as token ids.
    """

    system_prompt: SystemPrompt | None
    prefix: tuple[int, ...]
    known_as: SystemPrefix | None = None
    input: Input | None = None
    given: tuple[Message, ...] = ()
    given_ids: tuple[list[int], ...] = ()


class Inputs(Protocol):
    """Rows' inputs, loaded before the rows are added."""

    @property
    def number(self) -> int:
        """Of the inputs of the build."""

    def start_of(self, row_id: int) -> Start:
        """What the row starts with. It is loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingPair:
    """How a row's messages of both roles are sampled. The weights of a recipe's pairs sum to one."""

    user: Sampling
    assistant: Sampling
    weight: float = 1.0

    def of(self, role: Role) -> Sampling:
        """How messages of the role are sampled."""
        return self.user if role == "user" else self.assistant


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the content of a build's rows. Shared by all of its engines.

    messages_per_row: generated messages, alternating from the user's. decode: token ids of several messages
    -> their texts, special tokens kept. encode: a part of a generated message, its index in the dialogue, the
    dialogue's start and the markers that the model has generated in that part -> token ids. markers: the
    texts of the tokens that are no ordinary text, by id. knows: whether the tokenizer has all of these token
    ids; decoding leaves out the others. rules: by name, in order. reasoning: how to split an answer's
    reasoning from its content; None without thinking. acceptance: how often and from where a row is tried
    again. inputs: what rows start with; None where they draw one of the prompts. answers: how many rows of
    the recipe, next to each other, are answers to one row of a source; None where there is no source. A row
    of a source that can't be answered stays so.
    """

    chat_format: Format
    decode: Callable[[list[list[int]]], list[str]]
    rules: Mapping[str, Rule]
    samplings: tuple[SamplingPair, ...]
    messages_per_row: int
    prompts: tuple[SystemPrompt, ...]
    seed: int
    reproducible: bool
    acceptance: AcceptanceConfig
    reasoning: Reasoning | None = None
    encode: Callable[[str, int, Start, Collection[int]], list[int]] | None = None
    markers: Mapping[int, str] = field(default_factory=dict)
    knows: Callable[[Sequence[int]], bool] = lambda _: True
    inputs: Inputs | None = None
    answers: int | None = None

    @property
    def distinct_prompts(self) -> int:
        """System prompts that rows may have, at least 1."""
        return self.inputs.number if self.inputs else max(1, len(self.prompts))

    @cached_property
    def _bounds(self) -> tuple[float, ...]:
        return draws.bounds_of(prompt.weight for prompt in self.prompts)

    def start_of(self, row_id: int) -> Start:
        """What the row starts with."""
        if self.inputs:
            return self.inputs.start_of(row_id)
        prompt = draws.system_prompt_of(row_id, seed=self.seed, prompts=self.prompts, bounds=self._bounds)
        return Start(prompt, self.chat_format.prefix(prompt.text if prompt else None))
