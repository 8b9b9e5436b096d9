"""What the value of a key may be: the field types of all sections of the config.

Owns: the rule of each kind of field, with the phrase that says what would be right. YAML misleads: it reads
1e6 as text, `no` as false and a commit of digits as a number. So nothing is coerced, with one exception:
numbers in exponent notation count as numbers.
"""

import math
import re
from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, PlainValidator, model_validator

from magpie_ray.config import output_path
from magpie_ray.config.problems import bad_value
from magpie_ray.utils.import_path import IMPORT_PATH_FORM, is_import_path

BUILTIN_MODELS = ("builtin:tiny-chat",)
INT32_MAX = 2**31 - 1
# Wide enough for any real mix, narrow enough that no normalised weight becomes zero or infinite.
MIN_WEIGHT, MAX_WEIGHT = 1e-9, 1e9

_EXPONENT_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]{1,3}")
_BUILD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_URL_PASSWORD = re.compile(r"^[^/:]+://[^/]*:[^/]*@")

Validate: TypeAlias = Callable[[object], object]


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


def _integer(
    low: int, high: int = INT32_MAX, *, auto: bool = False, null: bool = False, note: str = ""
) -> Validate:
    bounds = f"a whole number of at least {low}" + (f" and at most {high}" if high != INT32_MAX else "")
    alternative = ", or auto" if auto else ", or null" if null else note

    def validate(value: object) -> object:
        if (auto and value == "auto") or (null and value is None):
            return value
        number = as_integer(value)
        if number is None or not low <= number <= high:
            raise bad_value(value, bounds + alternative + _quotes_hint(value))
        return number

    return validate


def _number(phrase: str, fits: Callable[[float], bool], *, null: bool = False) -> Validate:
    alternative = ", or null" if null else ""

    def validate(value: object) -> object:
        if null and value is None:
            return value
        number = as_number(value)
        if number is None or not fits(number):
            raise bad_value(value, phrase + alternative + _quotes_hint(value))
        return number

    return validate


def _quotes_hint(value: object) -> str:
    is_quoted_number = isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", value.strip())
    return ", without quotes" if is_quoted_number else ""


def _one_of(*names: str) -> Validate:
    def validate(value: object) -> object:
        if not isinstance(value, str) or value not in names:
            raise bad_value(value, f"one of {', '.join(names)}")
        return value

    return validate


def _text(phrase: str, *, null: bool = False) -> Validate:
    def validate(value: object) -> object:
        if null and value is None:
            return value
        if not is_text(value):
            hint = "" if isinstance(value, str | list | dict | None) else "; put it in quotes"
            raise bad_value(value, phrase + (", or null" if null else "") + hint)
        return value

    return validate


def _flag(value: object) -> object:
    if not isinstance(value, bool):
        raise bad_value(value, "true or false" + (", without quotes" if isinstance(value, str) else ""))
    return value


def _model_name(value: object) -> object:
    name = _text("a Hugging Face id, a local path or a bundled model")(value)
    if str(name).startswith("builtin:") and name not in BUILTIN_MODELS:
        raise bad_value(name, f"one of the bundled models: {', '.join(BUILTIN_MODELS)}")
    return name


def _import_path(value: object) -> object:
    if value is not None and not (isinstance(value, str) and is_import_path(value)):
        raise bad_value(value, f"{IMPORT_PATH_FORM}, or null")
    return value


def _output_path(value: object) -> object:
    path = str(_text("a local path or a URL such as s3://bucket/dataset")(value))
    if _URL_PASSWORD.match(path):
        # The value is not shown, as it holds the password.
        raise bad_value("a URL with a password in it", "without; credentials go to output.storage_options")
    scheme, separator, rest = path.partition("://")
    if separator and (not scheme or not rest.strip("/")):
        raise bad_value(path, "a URL with a scheme and a place, such as s3://bucket/dataset")
    if separator and scheme in ("http", "https"):
        endpoint = "an S3 server's address goes to output.storage_options.endpoint_url"
        raise bad_value(path, f"a place that can be written, such as s3://bucket/dataset; {endpoint}")
    if separator and "?" in rest:
        raise bad_value(
            path.partition("?")[0] + "?...", "without a query; options go to output.storage_options"
        )
    if (wrong := output_path.problem(path)) is not None:
        raise bad_value(path, wrong)
    return path


def _build_id(value: object) -> object:
    name = _text("text", null=True)(value)
    if name is not None and (not _BUILD_ID.fullmatch(str(name)) or name == output_path.LATEST):
        rule = "1 to 63 letters, digits, dots, dashes and underscores, the first one a letter or digit"
        raise bad_value(name, f"{rule}, and not {output_path.LATEST}")
    return name


Flag: TypeAlias = Annotated[bool, PlainValidator(_flag)]

# 10**12: the first row of a partition is written with twelve digits in its file name.
Rows: TypeAlias = Annotated[int, PlainValidator(_integer(1, 10**12))]
AutoRows: TypeAlias = Annotated[int | Literal["auto"], PlainValidator(_integer(1, 10**12, auto=True))]
Count: TypeAlias = Annotated[int, PlainValidator(_integer(1))]
Whole: TypeAlias = Annotated[int, PlainValidator(_integer(0))]
AutoCount: TypeAlias = Annotated[int | Literal["auto"], PlainValidator(_integer(1, auto=True))]
OptionalCount: TypeAlias = Annotated[int | None, PlainValidator(_integer(1, null=True))]
Seed: TypeAlias = Annotated[int | Literal["auto"], PlainValidator(_integer(0, 2**32 - 1, auto=True))]
TopK: TypeAlias = Annotated[int, PlainValidator(_integer(0, note=", where 0 means all tokens"))]

Temperature: TypeAlias = Annotated[float, PlainValidator(_number("a number of at least 0", lambda x: x >= 0))]
Positive: TypeAlias = Annotated[float, PlainValidator(_number("a number above 0", lambda x: x > 0))]
OptionalPositive: TypeAlias = Annotated[
    float | None, PlainValidator(_number("a number above 0", lambda x: x > 0, null=True))
]
Weight: TypeAlias = Annotated[
    float,
    PlainValidator(
        _number(
            f"a weight from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}; weights need not sum to one",
            lambda x: MIN_WEIGHT <= x <= MAX_WEIGHT,
        )
    ),
]
Share: TypeAlias = Annotated[
    float, PlainValidator(_number("a number above 0 and at most 1", lambda x: 0 < x <= 1))
]
MinP: TypeAlias = Annotated[float, PlainValidator(_number("a number from 0 to 1", lambda x: 0 <= x <= 1))]
Rate: TypeAlias = MinP
Penalty: TypeAlias = Annotated[
    float, PlainValidator(_number("a number from -2 to 2", lambda x: -2 <= x <= 2))
]

OptionalText: TypeAlias = Annotated[str | None, PlainValidator(_text("text", null=True))]
OptionalImportPath: TypeAlias = Annotated[str | None, PlainValidator(_import_path)]
ModelName: TypeAlias = Annotated[str, PlainValidator(_model_name)]
OutputPath: TypeAlias = Annotated[str, PlainValidator(_output_path)]
BuildId: TypeAlias = Annotated[str | None, PlainValidator(_build_id)]

Device: TypeAlias = Annotated[Literal["auto", "cuda", "cpu"], PlainValidator(_one_of("auto", "cuda", "cpu"))]
Dtype: TypeAlias = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    PlainValidator(_one_of("auto", "float32", "bfloat16", "float16")),
]
OnTruncated: TypeAlias = Annotated[Literal["keep", "reject"], PlainValidator(_one_of("keep", "reject"))]
OnContextFull: TypeAlias = Annotated[Literal["reject", "stop"], PlainValidator(_one_of("reject", "stop"))]
RetryFrom: TypeAlias = Annotated[Literal["start", "last_turn"], PlainValidator(_one_of("start", "last_turn"))]
Compression: TypeAlias = Annotated[
    Literal["zstd", "snappy", "gzip", "lz4", "none"],
    PlainValidator(_one_of("zstd", "snappy", "gzip", "lz4", "none")),
]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, data: object) -> object:
        # `engine:` with every line below it commented out reads as null.
        return {} if data is None else data
