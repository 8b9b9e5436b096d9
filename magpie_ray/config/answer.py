"""The config of the pass `answer`: which rows are answered, how often, and by which model."""

from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from magpie_ray.config import fields
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.config.fields import Section, is_text, must_be
from magpie_ray.config.inputs import SourceConfig
from magpie_ray.config.job import (
    acceptance_identity,
    check_reasoning,
    check_room,
    engine_identity,
    model_identity,
    seed_number,
    without_secrets,
)
from magpie_ray.config.problems import bad_value
from magpie_ray.config.sampling import SamplingConfig
from magpie_ray.config.sections import ClusterConfig, EngineConfig, ModelConfig, OutputConfig, RoundsConfig
from magpie_ray.types import Role
from magpie_ray.utils.redaction import secrets_of


def _own_prompt(value: object) -> str | None:
    return value if isinstance(value, str) and (value == "" or is_text(value)) else None


class AnswerConfig(Section):
    """A whole, consistent request for answers. Made by `config.jobs`, which raises `ConfigError`.

    num_rows: of the source, from its first one on; 0 where it is left out: all of them. n: answers to each
    row. more_turns: further turns that the model writes behind its answer. system_prompt: None for that of
    each row of the source, "" for none, or a text for all rows.
    """

    source: SourceConfig
    num_rows: int = 0
    n: fields.Count = 1
    more_turns: fields.Whole = 0
    include_system_prompt: bool = False
    system_prompt: Annotated[
        str | None, must_be('text, or "" for no system prompt at all', _own_prompt, null=True)
    ] = None
    seed: fields.Seed = "auto"
    model: ModelConfig = ModelConfig()
    # Checked also where it is left out: the default is greedy.
    sampling: SamplingConfig = Field(default=SamplingConfig(), validate_default=True)
    engine: EngineConfig = EngineConfig()
    rounds: RoundsConfig = RoundsConfig()
    acceptance: AcceptanceConfig = AcceptanceConfig()
    cluster: ClusterConfig = ClusterConfig()
    output: OutputConfig = OutputConfig(path="./out/answers")

    _counts_rows = field_validator("num_rows", mode="plain")(fields.rows_or_all)

    @field_validator("more_turns")
    @classmethod
    def _follow_one_answer(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("n", 1) > 1:
            raise bad_value(value, "0 with n above 1: further turns follow one answer")
        return value

    @field_validator("sampling")
    @classmethod
    def _makes_answers_that_differ(cls, sampling: SamplingConfig, info: ValidationInfo) -> SamplingConfig:
        check_reasoning(sampling, info.data.get("model"))
        if info.data.get("n", 1) > 1:
            for settings, _ in sampling.mix("assistant"):
                if settings.is_greedy:
                    phrase = "above 0 with n above 1: greedy answers to one row are all the same"
                    raise bad_value(settings.temperature, phrase, at=("assistant", "temperature"))
        return sampling

    @field_validator("engine")
    @classmethod
    def _serves_the_sampling(cls, engine: EngineConfig, info: ValidationInfo) -> EngineConfig:
        if sampling := info.data.get("sampling"):
            roles: tuple[Role, ...] = ("user", "assistant") if info.data.get("more_turns") else ("assistant",)
            check_room(engine, sampling, roles)
        return engine

    @field_validator("acceptance")
    @classmethod
    def _has_no_keys_of_prompts(cls, acceptance: AcceptanceConfig) -> AcceptanceConfig:
        language = acceptance.rules.language
        for key, codes in (language.by_prompt if language else {}).items():
            phrase = "left out in a pass: its system prompts have no keys"
            raise bad_value(codes, phrase, at=("rules", "language", "by_prompt", key))
        return acceptance

    @property
    def seed_number(self) -> int:
        """The seed; see config.job.seed_number."""
        return seed_number(self.seed)

    @property
    def own_rules(self) -> list[str]:
        """Import paths of the user's own acceptance rules."""
        return [path for path, _ in self.acceptance.custom_rules]

    @property
    def turns(self) -> int:
        """Turns that are generated at least in part."""
        return 1 + self.more_turns

    @property
    def messages_per_row(self) -> int:
        """Messages that are generated for one answer: the answer, and two for each further turn."""
        return 1 + 2 * self.more_turns

    @property
    def max_tokens_per_row(self) -> int:
        """The largest number of tokens that can be generated for a row."""
        users, answers = self.more_turns, self.n + self.more_turns
        return users * self.sampling.max_tokens("user") + answers * self.sampling.max_tokens("assistant")

    def identity(self) -> dict[str, object]:
        """The config's part of the fingerprint, as Config.identity; the build spec adds the source."""
        return {
            "job": "answer",
            "n": self.n,
            "more_turns": self.more_turns,
            "include_system_prompt": self.include_system_prompt,
            "system_prompt": self.system_prompt,
            "seed": self.seed_number,
            "source.keep": self.source.keep,
            **model_identity(self.model),
            **self.sampling.identity(),
            **engine_identity(self.engine),
            **acceptance_identity(self.acceptance, turns=self.turns),
        }

    def secrets(self) -> frozenset[str]:
        """As Config.secrets."""
        return secrets_of(self.engine.extra, self.output.storage_options, self.source.storage_options)

    def recorded(self) -> dict[str, Any]:
        """The config for build.json, JSON-able, without num_rows and secrets."""
        return without_secrets(self.model_dump(exclude={"num_rows"}), self.engine.extra)
