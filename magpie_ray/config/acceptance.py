"""The section `acceptance`: attempts, the rules that are on with their thresholds, and the user's own rules.

Owns: the keys under `acceptance`. Those under `acceptance.rules` are in the order in which rules are tried.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, WrapSerializer, model_validator

from magpie_ray.config import fields
from magpie_ray.config.extras import plain_mapping
from magpie_ray.config.fields import Section, must_be, must_be_a
from magpie_ray.config.problems import BadValueError, bad_value
from magpie_ray.utils.import_path import is_import_path

_CUSTOM = "my_module:my_rule, or {my_module:my_rule: {threshold: value}}"

# Languages that the detector of the extra `language` knows, by ISO 639 code.
_CODES = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs
cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr
hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc
lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa
pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg
th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
LANGUAGES = frozenset(_CODES.split())


def _as_codes(value: object) -> list[str] | None:
    codes = [value] if isinstance(value, str) else value
    if not isinstance(codes, list) or not all(isinstance(code, str) and code in LANGUAGES for code in codes):
        return None
    return codes[:] or None


def _norwegian(value: object) -> str:
    return "; put no in quotes, which YAML reads as false" if value is False else ""


Languages = Annotated[
    list[str],
    must_be("a two-letter language code such as de, or a list of such", _as_codes, hint=_norwegian),
]
LanguagesByPrompt = Annotated[
    dict[str, Languages],
    must_be_a(dict, "a mapping of keys of system_prompt to languages, such as {german: de}"),
]


class RoleMarkerRule(Section):
    """Pieces of a chat template. other_formats: also those of other models."""

    other_formats: bool = True


class NotTextRule(Section):
    """How many doubtful characters text may have: U+FFFD, pairs like "Ã¼", changes of script in words."""

    replacement_characters: fields.Whole = 0
    mojibake: fields.Whole = 4
    script_changes: fields.Whole = 3


class LengthRule(Section):
    """Bounds in characters."""

    min_user: fields.OptionalCount = None
    max_user: fields.OptionalCount = None
    min_assistant: fields.OptionalCount = None
    max_assistant: fields.OptionalCount = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> "LengthRule":
        if not any(bound is not None for bound in self.model_dump().values()):
            raise bad_value(True, "false, or a mapping with a bound, such as {min_user: 20}")
        for role in ("user", "assistant"):
            low, high = getattr(self, f"min_{role}"), getattr(self, f"max_{role}")
            if low is not None and high is not None and low > high:
                raise bad_value(high, f"at least min_{role}, which is {low}", at=(f"max_{role}",))
        return self


class RepetitionRule(Section):
    """Signs of a loop: characters and repeats of a repeated piece, or how well the end compresses.

    max_said_before: the share of a message that repeats an earlier part of it.
    """

    min_characters: fields.Count = 160
    min_repeats: fields.Count = 4
    max_ratio: fields.Share = 0.16
    max_said_before: fields.Share = 0.2


class RefusalRule(Section):
    """Refusals in the user's messages. assistant: also in the assistant's."""

    assistant: bool = False


class RepeatedTurnRule(Section):
    """How similar is too similar, from 0 to 1, and from how many letters on."""

    similarity: fields.Share = 0.9
    min_characters: fields.Count = 9


class LanguageRule(Section):
    """Languages of messages: `is` in all rows, `by_prompt` in the rows of a system prompt's key."""

    model_config = ConfigDict(serialize_by_alias=True)

    wanted: Languages | None = Field(default=None, alias="is")
    by_prompt: LanguagesByPrompt = Field(default={})
    min_confidence: fields.Share = 0.5
    min_letters: fields.Count = 20

    @model_validator(mode="after")
    def _asks_for_one(self) -> "LanguageRule":
        if self.wanted is None and not self.by_prompt:
            raise bad_value(True, "false, or a mapping that names a language, such as {is: de}")
        return self


_SectionT = TypeVar("_SectionT", bound=Section)


def _switch(value: object) -> object:
    """true: on with the defaults.

    false: off, which is None in the config. A mapping: on with these thresholds.
    """
    if isinstance(value, bool):
        return {} if value else None
    if isinstance(value, dict | Section):
        return value
    raise bad_value(value, "true, false or a mapping of the rule's thresholds")


Switch = Annotated[
    _SectionT | None,
    BeforeValidator(_switch),
    WrapSerializer(lambda value, dump: False if value is None else dump(value)),
]


class RulesConfig(Section):
    """The rules in the order in which they are tried."""

    empty: bool = True
    truncated: bool = True
    role_marker: Switch[RoleMarkerRule] = RoleMarkerRule()
    not_text: Switch[NotTextRule] = NotTextRule()
    length: Switch[LengthRule] = None
    repetition: Switch[RepetitionRule] = RepetitionRule()
    own_answer: bool = True
    self_talk: bool = True
    refusal: Switch[RefusalRule] = RefusalRule()
    repeated_turn: Switch[RepeatedTurnRule] = RepeatedTurnRule()
    language: Switch[LanguageRule] = None


def _custom_rule(rule: object) -> str | dict[str, dict[str, Any]]:
    if callable(rule):
        rule = fields.path_of_function(rule)
    [(path, thresholds)] = rule.items() if isinstance(rule, dict) and len(rule) == 1 else [(rule, None)]
    if not is_import_path(path):
        raise bad_value(rule, f"written {_CUSTOM}")
    if thresholds is None:
        return path
    if not isinstance(thresholds, dict):
        raise bad_value(thresholds, "a mapping of thresholds", at=(path,))
    try:
        return {path: plain_mapping(thresholds, has_numbers=True)}
    except BadValueError as exc:
        raise BadValueError(*(replace(problem, at=(path, *problem.at)) for problem in exc.problems)) from None


CustomRules = Annotated[
    list[Annotated[str | dict[str, dict[str, Any]], PlainValidator(_custom_rule)]],
    BeforeValidator(lambda rules: list(rules) if isinstance(rules, tuple) else rules),
    must_be_a((list, tuple), f"a list of import paths, each written {_CUSTOM}"),
]


class AcceptanceConfig(Section):
    """When a message is rejected, and how often and from where a row is tried again."""

    max_attempts: fields.AutoCount = "auto"
    truncated_response: Literal["keep", "reject"] = "keep"
    context_full: Literal["reject", "stop"] = "reject"
    retry_from: Literal["start", "last_turn"] = "start"
    min_accept_rate: fields.Rate = 0.1
    rejects_per_reason: fields.Whole = 3
    rules: RulesConfig = RulesConfig()
    custom: CustomRules = Field(default=[])

    @property
    def custom_rules(self) -> list[tuple[str, dict[str, Any]]]:
        """Import path and thresholds of the user's own rules, in the order in which they are tried."""
        return [(rule, {}) if isinstance(rule, str) else next(iter(rule.items())) for rule in self.custom]
