"""Types of fields that several sections of the config share, and the base class of all sections.

Owns: what a number, a text or a name in the config may be, with the phrase that says what would be right.
YAML misleads: it reads 1e6 as text, `no` as false and a commit of digits as a number. Invariant: no value is
coerced, with one exception: numbers in exponent notation count as numbers. Flags and choices are plain bool
and Literal, which pydantic takes strictly.
"""

import math
import re
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainValidator, model_validator

from magpie_ray.config.problems import bad_value
from magpie_ray.types import BUILTIN_MODELS
from magpie_ray.utils.import_path import IMPORT_PATH_FORM, is_import_path

INT32_MAX = 2**31 - 1
# Wide enough for any real mix, narrow enough that no normalised weight becomes zero or infinite.
MIN_WEIGHT, MAX_WEIGHT = 1e-9, 1e9
WEIGHT_PHRASE = f"a weight from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}; weights need not sum to one"

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_EXPONENT_NUMBER = re.compile(rf"{_NUMBER.pattern}[eE][+-]?[0-9]{{1,3}}")


def as_number(value: object) -> float | None:
    """`value` as a finite number, or None when it is none. Booleans are none."""
    if isinstance(value, str) and _EXPONENT_NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_integer(value: object) -> int | None:
    """`value` as an integer, or None when it is none: 1000000, 1000000.0 and "1e6" are the same one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = as_number(value)
    # Beyond 2**53 a float no longer holds every integer.
    return int(number) if number is not None and number.is_integer() and abs(number) <= 2**53 else None


def is_text(value: object) -> bool:
    """Whether `value` is text that is not blank and that every program can store."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def must_be(
    phrase: str,
    parse: Callable[[object], object],
    *,
    auto: bool = False,
    null: bool = False,
    hint: Callable[[object], str] = lambda value: "",
) -> PlainValidator:
    """The rule of a field. `parse` gives what a value means, or None where the value is not `phrase`.

    auto, null: whether the value may also be "auto" or null. hint: what else would help with a wrong value.
    """
    alternative = ", or auto" if auto else ", or null" if null else ""

    def validate(value: object) -> object:
        if (auto and value == "auto") or (null and value is None):
            return value
        meaning = parse(value)
        if meaning is None:
            raise bad_value(value, phrase + alternative + hint(value))
        return meaning

    return PlainValidator(validate)


def must_be_a(kind: type | tuple[type, ...], phrase: str) -> BeforeValidator:
    """The rule of a list or mapping whose items have rules of their own."""

    def validate(value: object) -> object:
        if not isinstance(value, kind):
            raise bad_value(value, phrase)
        return value

    return BeforeValidator(validate)


def must_be_number(
    phrase: str,
    fits: Callable[[float], bool],
    *,
    read: Callable[[object], float | None] = as_number,
    auto: bool = False,
    null: bool = False,
) -> PlainValidator:
    """The rule of a number, with a fraction or (read: as_integer) without."""

    def parse(value: object) -> float | None:
        number = read(value)
        return number if number is not None and fits(number) else None

    def hint(value: object) -> str:
        return ", without quotes" if isinstance(value, str) and _NUMBER.fullmatch(value.strip()) else ""

    return must_be(phrase, parse, auto=auto, null=null, hint=hint)


def _must_be_integer(
    low: int, high: int = INT32_MAX, *, auto: bool = False, null: bool = False, note: str = ""
) -> PlainValidator:
    phrase = f"a whole number of at least {low}" + (f" and at most {high}" if high != INT32_MAX else "")
    return must_be_number(phrase + note, lambda x: low <= x <= high, read=as_integer, auto=auto, null=null)


def must_be_text(phrase: str = "text", *, null: bool = False) -> PlainValidator:
    """The rule of text that is not blank."""

    def hint(value: object) -> str:
        return "" if isinstance(value, str | list | dict | None) else "; put it in quotes"

    return must_be(phrase, lambda value: value if is_text(value) else None, null=null, hint=hint)


def _is_bundled(name: str) -> str:
    if name.startswith("builtin:") and name not in BUILTIN_MODELS:
        raise bad_value(name, f"one of the bundled models: {', '.join(BUILTIN_MODELS)}")
    return name


# 10**12: the first row of a partition is written with twelve digits in its file name.
Rows = Annotated[int, _must_be_integer(1, 10**12)]
AutoRows = Annotated[int | Literal["auto"], _must_be_integer(1, 10**12, auto=True)]
Count = Annotated[int, _must_be_integer(1)]
Whole = Annotated[int, _must_be_integer(0)]
AutoCount = Annotated[int | Literal["auto"], _must_be_integer(1, auto=True)]
AutoActors = Annotated[int | Literal["auto"], _must_be_integer(1, 10**6, auto=True)]
OptionalCount = Annotated[int | None, _must_be_integer(1, null=True)]
Seed = Annotated[int | Literal["auto"], _must_be_integer(0, 2**32 - 1, auto=True)]
TopK = Annotated[int, _must_be_integer(0, note=", where 0 means all tokens")]

MAX_TEMPERATURE = 2.0  # vLLM's
Temperature = Annotated[
    float, must_be_number(f"a number from 0 to {MAX_TEMPERATURE:g}", lambda x: 0 <= x <= MAX_TEMPERATURE)
]
Positive = Annotated[float, must_be_number("a number above 0", lambda x: x > 0)]
OptionalPositive = Annotated[float | None, must_be_number("a number above 0", lambda x: x > 0, null=True)]
Share = Annotated[float, must_be_number("a number above 0 and at most 1", lambda x: 0 < x <= 1)]
Rate = Annotated[float, must_be_number("a number from 0 to 1", lambda x: 0 <= x <= 1)]
Penalty = Annotated[float, must_be_number("a number from -2 to 2", lambda x: -2 <= x <= 2)]
Weight = Annotated[float, must_be_number(WEIGHT_PHRASE, lambda x: MIN_WEIGHT <= x <= MAX_WEIGHT)]


def rows_or_all(value: object) -> int:
    """A number of rows of a source; null and 0, which stands for null, mean all of them."""
    number = 0 if value is None else as_integer(value)
    if number == 0:
        return 0
    if number is None or not 1 <= number <= 10**12:
        raise bad_value(value, "a whole number of at least 1 and at most 1000000000000, or null for all rows")
    return number


OptionalText = Annotated[str | None, must_be_text(null=True)]
OptionalImportPath = Annotated[
    str | None, must_be(IMPORT_PATH_FORM, lambda value: value if is_import_path(value) else None, null=True)
]
ModelName = Annotated[
    str, must_be_text("a Hugging Face id, a local path or a bundled model"), AfterValidator(_is_bundled)
]


def path_of_function(function: Any) -> str:
    """The import path of a function object, which a config from Python may hold."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        rule = "a function at the top of a module or of the script, which workers find by its name"
        raise bad_value(function, rule)
    return f"{module}:{name}"


class Section(BaseModel):
    """A mapping of the config. Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, data: Any) -> Any:
        # `engine:` with every line below it commented out reads as null.
        return {} if data is None else data
