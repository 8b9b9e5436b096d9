"""The config of `generate`: a frozen, fully checked `Config`.

Owns: the keys of the top level, what may be combined, and what follows from the keys alone (prompts, columns,
the keys that a build may not change). Invariant: nothing heavy is imported, so that a mistake is reported in
milliseconds.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    Field,
    PlainValidator,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import PydanticCustomError

from magpie_ray.config import fields
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.config.fields import Section
from magpie_ray.config.inputs import InputsConfig
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
from magpie_ray.config.system_prompts import SystemPromptValue, check_system_prompt, resolve_prompts
from magpie_ray.types import ROLES, SystemPrompt
from magpie_ray.utils.redaction import secrets_of

# Stands for num_rows where the user has not written it; no value of YAML is equal.
_LEFT_OUT: Any = frozenset({"left out"})


class Config(Section):
    """A whole, consistent request. Made by `config.loading`, which raises `ConfigError`."""

    inputs: InputsConfig = InputsConfig()
    # 0 where it is left out: one row for each input, whose number the build spec knows.
    num_rows: fields.Rows = Field(default=_LEFT_OUT, validate_default=True)
    n_turns: fields.Count = 1
    only_instruction: bool = False
    end_with_user: bool = False
    include_system_prompt: bool = False
    system_prompt: Annotated[SystemPromptValue, PlainValidator(check_system_prompt)] = None
    seed: fields.Seed = "auto"
    model: ModelConfig = ModelConfig()
    sampling: SamplingConfig = SamplingConfig()
    engine: EngineConfig = EngineConfig()
    rounds: RoundsConfig = RoundsConfig()
    acceptance: AcceptanceConfig = AcceptanceConfig()
    cluster: ClusterConfig = ClusterConfig()
    output: OutputConfig = OutputConfig()

    @field_validator("num_rows", mode="wrap")
    @classmethod
    def _is_left_out_only_with_inputs(
        cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> int:
        inputs = info.data.get("inputs")
        may_be_left_out = inputs is None or inputs.path is not None
        if value == _LEFT_OUT and not may_be_left_out:
            raise PydanticCustomError("missing", "required without inputs")
        return 0 if value == _LEFT_OUT or (value is None and may_be_left_out) else int(handler(value))

    # Each field is checked against those before it. pydantic would skip a check of the whole config when any
    # field is wrong, and the user would see some problems only after the others are solved.
    @field_validator("include_system_prompt")
    @classmethod
    def _has_a_conversation_to_be_in(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("only_instruction"):
            raise bad_value(value, "false with only_instruction: true, which writes no `conversation` column")
        return value

    @field_validator("model")
    @classmethod
    def _has_an_answer_to_think_about(cls, model: ModelConfig, info: ValidationInfo) -> ModelConfig:
        if model.thinking and not _has_answers(info.data):
            phrase = "false where rows have no answers (only_instruction, end_with_user)"
            raise bad_value(True, phrase, at=("thinking",))
        return model

    @field_validator("engine")
    @classmethod
    def _serves_the_sampling(cls, engine: EngineConfig, info: ValidationInfo) -> EngineConfig:
        if sampling := info.data.get("sampling"):
            check_room(engine, sampling, ROLES if _has_answers(info.data) else ROLES[:1])
        return engine

    @field_validator("sampling")
    @classmethod
    def _leaves_reasoning_alone(cls, sampling: SamplingConfig, info: ValidationInfo) -> SamplingConfig:
        check_reasoning(sampling, info.data.get("model"))
        return sampling

    @field_validator("acceptance")
    @classmethod
    def _names_keys_of_prompts(cls, acceptance: AcceptanceConfig, info: ValidationInfo) -> AcceptanceConfig:
        language, prompts = acceptance.rules.language, info.data.get("system_prompt")
        if language is None or "system_prompt" not in info.data:
            return acceptance
        inputs = info.data.get("inputs")
        known = list(prompts) if isinstance(prompts, dict) and not (inputs and inputs.path) else []
        for key, codes in language.by_prompt.items():
            if key not in known:
                phrase = f"under a key of system_prompt, which has {', '.join(known) or 'no keys'}"
                if inputs and inputs.path:
                    phrase = "left out with inputs.path: the prompts of inputs have no keys"
                raise bad_value(codes, phrase, at=("rules", "language", "by_prompt", key))
        return acceptance

    @property
    def seed_number(self) -> int:
        """The seed; see config.job.seed_number."""
        return seed_number(self.seed)

    @property
    def turns(self) -> int:
        """Turns of a row. It is 1 with only_instruction, which ignores n_turns."""
        return 1 if self.only_instruction else self.n_turns

    @property
    def messages_per_row(self) -> int:
        """Generated messages of a row, without the system message."""
        return 1 if self.only_instruction else 2 * self.n_turns - self.end_with_user

    @property
    def max_tokens_per_row(self) -> int:
        """The largest number of tokens that can be generated for a row."""
        answers = self.messages_per_row // 2
        users = self.messages_per_row - answers
        return users * self.sampling.max_tokens("user") + answers * self.sampling.max_tokens("assistant")

    @property
    def prompts(self) -> tuple[SystemPrompt, ...]:
        """The system prompts that rows choose from, () when they have none. Resolved at each access.

        Rows with inputs have the prompts of their inputs, and no others.
        """
        if self.has_inputs:
            return ()
        return resolve_prompts(self.system_prompt, multi_turn=self.turns > 1)

    @property
    def prompts_are_default(self) -> bool:
        """Whether rows get the paper's prompt by default. A template without a system role leaves it out."""
        return self.system_prompt is None and self.turns > 1 and not self.has_inputs

    @property
    def has_prompt_keys(self) -> bool:
        """Whether rows have the column `system_prompt_key`, which names the prompt they started with."""
        return isinstance(self.system_prompt, dict) and not self.has_inputs

    @property
    def has_inputs(self) -> bool:
        """Whether each row has an input of its own, which gives its system prompt."""
        return self.inputs.path is not None

    @property
    def own_rules(self) -> list[str]:
        """Import paths of the user's own acceptance rules."""
        return [path for path, _ in self.acceptance.custom_rules]

    def identity(self) -> dict[str, object]:
        """The config's part of the fingerprint: values that a build may never mix, JSON-able, by dotted key.

        Keys count by their meaning: another way to write the same thing is no mismatch. Left out are:
        num_rows, which may grow; output, cluster and rounds, because a resume may run elsewhere; what
        config.job leaves out of the sections; inputs.path, system_prompt and weight, whose content the build
        spec adds as inputs.content; and everything that looks like a secret. config/identity.py says with
        which value a key that came later is left out, too.
        """
        prompts = [[prompt.key, prompt.text, float(f"{prompt.weight:.12g}")] for prompt in self.prompts]
        return {
            "n_turns": self.turns,
            "only_instruction": self.only_instruction,
            "end_with_user": self.only_instruction or self.end_with_user,
            "include_system_prompt": self.include_system_prompt,
            "system_prompt": prompts,
            "seed": self.seed_number,
            "inputs.keep": self.inputs.keep,
            "inputs.pick": self.inputs.pick,
            **model_identity(self.model),
            **self.sampling.identity(),
            **engine_identity(self.engine),
            **acceptance_identity(self.acceptance, turns=self.turns),
        }

    def secrets(self) -> frozenset[str]:
        """Secrets in this config and in the environment, for `redaction.scrub`. No message may show them."""
        return secrets_of(self.engine.extra, self.output.storage_options, self.inputs.storage_options)

    def recorded(self) -> dict[str, Any]:
        """The config for build.json, JSON-able and with its default prompt, without num_rows and secrets."""
        data = self.model_dump(exclude={"num_rows"})
        if self.prompts_are_default:
            data["system_prompt"] = self.prompts[0].text
        return without_secrets(data, self.engine.extra)


def _has_answers(keys: Mapping[str, Any]) -> bool:
    """Whether rows have answers, by the keys of the config that are checked already."""
    return not keys.get("only_instruction") and not (keys.get("end_with_user") and keys.get("n_turns") == 1)
