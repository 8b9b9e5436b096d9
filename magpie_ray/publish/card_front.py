"""Columns and sizes in the notation of a dataset card's front matter, as the Hugging Face hub reads it.

Pure.
"""

import pyarrow as pa

# The names of Arrow types in the front matter.
_NAMED = {
    **{name: name for name in ("bool", "string", "binary", "int8", "int16", "int32", "int64")},
    **{name: name for name in ("large_string", "uint8", "uint16", "uint32", "uint64")},
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    "date32[day]": "date32",
}
# The bounds in the hub's names for the number of rows, from 1,000 on, each ten times the one before.
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")


def features(schema: pa.Schema) -> list[dict[str, object]]:
    """The columns and their types; none where one of them has no name here.

    Readers find the types in the files, too. A type that is written wrongly here would keep them out.
    """
    if not all(_is_known(field.type) for field in schema):
        return []
    return [{"name": field.name, **_feature(field.type)} for field in schema]


def size_category(rows: int) -> str:
    """The hub's name for a number of rows."""
    reached = sum(rows >= 1000 * 10**power for power in range(len(_SIZES)))
    if reached == 0:
        return f"n<{_SIZES[0]}"
    return f"{_SIZES[reached - 1]}<n<{_SIZES[reached]}" if reached < len(_SIZES) else f"n>{_SIZES[-1]}"


def _is_known(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return all(str(field.type) in _NAMED for field in kind.value_type)
    return str(kind.value_type if _is_list(kind) else kind) in _NAMED


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _feature(kind: pa.DataType) -> dict[str, object]:
    """The type of a column in the notation of the front matter."""
    if pa.types.is_fixed_size_list(kind):
        return {"list": _NAMED[str(kind.value_type)], "length": kind.list_size}
    if not pa.types.is_list(kind):
        return {"dtype": _NAMED[str(kind)]}
    if pa.types.is_struct(kind.value_type):
        return {"list": [{"name": field.name, **_feature(field.type)} for field in kind.value_type]}
    return {"list": _NAMED[str(kind.value_type)]}
