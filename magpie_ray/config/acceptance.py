"""The rules of acceptance as the user sets them: which are on, with what thresholds, and the user's own.

Owns: the keys under `acceptance.rules`, in the order in which the rules are tried, and `acceptance.custom`.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, WrapSerializer, model_validator

from magpie_ray.config import fields
from magpie_ray.config.extras import plain_mapping
from magpie_ray.config.fields import Section
from magpie_ray.config.problems import BadValueError, Problem, bad_value
from magpie_ray.utils.import_path import is_import_path

_CUSTOM = "my_module:my_rule, or {my_module:my_rule: {threshold: value}}"

# What the detector of the extra `language` tells apart, by ISO 639 code.
_CODES = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs
cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr
hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc
lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa
pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg
th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
LANGUAGES = frozenset(_CODES.split())


def _codes(value: object) -> list[str]:
    """A language or several, as a list. BadValueError for what is no code of one."""
    codes = [value] if isinstance(value, str) else value
    if (
        not isinstance(codes, list)
        or not codes
        or not all(isinstance(code, str) and code in LANGUAGES for code in codes)
    ):
        hint = "; put no in quotes, which YAML reads as false" if codes is False else ""
        raise bad_value(value, f"a two-letter language code such as de, or a list of such{hint}")
    return list(codes)


def _codes_by_prompt(value: object) -> dict[str, list[str]]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise bad_value(value, "a mapping of keys of system_prompt to languages, such as {german: de}")
    codes = {}
    for key, languages in value.items():
        try:
            codes[key] = _codes(languages)
        except BadValueError as exc:
            raise BadValueError(
                *(Problem(at=(key,), value=p.value, must=p.must) for p in exc.problems)
            ) from None
    return codes


Languages: TypeAlias = Annotated[list[str], PlainValidator(_codes)]
LanguagesByPrompt: TypeAlias = Annotated[dict[str, list[str]], PlainValidator(_codes_by_prompt)]


class RoleMarkerRule(Section):
    """Pieces of a chat template. other_formats: also of other models' than the build's."""

    other_formats: fields.Flag = True


class NotTextRule(Section):
    """How many doubtful characters are still text: U+FFFD, pairs like "Ã¼", changes of script in words."""

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
                must = f"must be at least min_{role}, which is {low}"
                raise BadValueError(Problem(at=(f"max_{role}",), value=high, must=must))
        return self


class RepetitionRule(Section):
    """What makes a loop: characters and repeats of what is said again, or how well the end compresses."""

    min_characters: fields.Count = 160
    min_repeats: fields.Count = 4
    max_ratio: fields.Share = 0.16


class RefusalRule(Section):
    """Refusals of the user are always meant; assistant: also the assistant's."""

    assistant: fields.Flag = False


class RepeatedTurnRule(Section):
    """How similar is too similar, from 0 to 1, and from how many letters on."""

    similarity: fields.Share = 0.9
    min_characters: fields.Count = 9


class LanguageRule(Section):
    """Which language is asked for: `is` in all rows, or `by_prompt` in those of a system prompt's key."""

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
    """true: with its defaults; false: off, None from here on; a mapping: on, with these thresholds."""
    if isinstance(value, bool):
        return {} if value else None
    if isinstance(value, dict | Section):
        return value
    raise bad_value(value, "true, false or a mapping of the rule's thresholds")


def _off_is_false(value: Section | None, dump: Callable[[Any], Any]) -> Any:
    return False if value is None else dump(value)


Switch: TypeAlias = Annotated[_SectionT | None, BeforeValidator(_switch), WrapSerializer(_off_is_false)]


class RulesConfig(Section):
    """The rules in the order in which they are tried."""

    empty: fields.Flag = True
    truncated: fields.Flag = True
    role_marker: Switch[RoleMarkerRule] = RoleMarkerRule()
    not_text: Switch[NotTextRule] = NotTextRule()
    length: Switch[LengthRule] = None
    repetition: Switch[RepetitionRule] = RepetitionRule()
    own_answer: fields.Flag = True
    self_talk: fields.Flag = True
    refusal: Switch[RefusalRule] = RefusalRule()
    repeated_turn: Switch[RepeatedTurnRule] = RepeatedTurnRule()
    language: Switch[LanguageRule] = None


def _custom(value: object) -> list[str | dict[str, dict[str, object]]]:
    if not isinstance(value, list | tuple):
        raise bad_value(value, f"a list of import paths, each written {_CUSTOM}")
    return [_custom_rule(item, str(index)) for index, item in enumerate(value)]


def _custom_rule(item: object, index: str) -> str | dict[str, dict[str, object]]:
    if callable(item):
        item = _path_of(item, index)
    [(path, thresholds)] = item.items() if isinstance(item, dict) and len(item) == 1 else [(item, None)]
    if not isinstance(path, str) or not is_import_path(path):
        raise BadValueError(Problem(at=(index,), value=item, must=f"must be written {_CUSTOM}"))
    if thresholds is None:
        return path
    if not isinstance(thresholds, dict):
        raise BadValueError(
            Problem(at=(index, path), value=thresholds, must="must be a mapping of thresholds")
        )
    copied, problems = plain_mapping(thresholds, has_numbers=True)
    if problems:
        raise BadValueError(*(Problem(at=(index, path, *p.at), value=p.value, must=p.must) for p in problems))
    return {path: copied}


def _path_of(function: Any, index: str) -> str:
    """The import path of a function that was given as it is, from Python."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    if module == "__main__" or found is not function:
        must = (
            "must be a function at the top of a module that workers can import, and not in the main program"
        )
        raise BadValueError(Problem(at=(index,), value=function, must=must))
    return f"{module}:{name}"


CustomRules: TypeAlias = Annotated[list[str | dict[str, dict[str, Any]]], PlainValidator(_custom)]


def custom_rules(
    custom: Sequence[str | dict[str, dict[str, Any]]],
) -> list[tuple[str, dict[str, Any]]]:
    """Import path and thresholds of each of the user's own rules, in the order in which they are tried."""
    return [(item, {}) if isinstance(item, str) else next(iter(item.items())) for item in custom]
