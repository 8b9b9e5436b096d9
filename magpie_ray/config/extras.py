"""The rule of the free-form mappings of a config, such as `output.storage_options`: plain values, bounded."""

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any

from magpie_ray.config.fields import as_number, is_text
from magpie_ray.config.problems import BadValueError, Problem, show

_MAX_DEPTH = 20
_MAX_VALUES = 10_000


def plain_mapping(
    value: Any, *, has_numbers: bool = False, names: Iterable[Problem] = ()
) -> dict[str, object]:
    """A copy of a mapping that JSON can hold, too; null is an empty one.

    has_numbers: whether text that looks like a number in exponent notation is a mistake. names: problems that
    the caller has found with its names.

    Raises:
        BadValueError: with every problem found in it.
    """
    if problems := [*_problems(value, has_numbers=has_numbers), *names]:
        raise BadValueError(*problems)
    return copy.deepcopy(value or {})


def _problems(value: object, *, has_numbers: bool) -> Iterator[Problem]:
    """What JSON can't hold. A few lines of YAML with aliases can mean a cycle, so all is bounded."""
    if value is not None and not isinstance(value, dict):
        yield Problem(value=value, must="must be a mapping of names to values")
        return
    for count, (at, item, is_named) in enumerate(_items(value), start=1):
        if not is_named:
            yield Problem(at=at, value=item, must="must be under a name that is text; put the name in quotes")
        elif len(at) > _MAX_DEPTH or count > _MAX_VALUES:
            must = f"must be at most {_MAX_DEPTH} levels deep, with at most {_MAX_VALUES} values"
            yield Problem(at=at[:1], value=item, must=must)
            return
        elif not _is_plain(item):
            must = "must be text, a number, true, false, null, a list or a mapping"
            yield Problem(at=at, value=item, must=must)
        elif has_numbers and isinstance(item, str) and as_number(item) is not None:
            # No field type says that a number is meant here, and the engine would get text.
            must = "must be written with a dot and a sign, as 1.0e+6 is: YAML reads 1e6 as text"
            yield Problem(at=at, value=item, must=must)


def _items(value: object, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object, bool]]:
    """All values in a mapping or list, each before those in it: path, value, whether its name is text."""
    pairs: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = ((str(index), item) for index, item in enumerate(value))
    for name, item in pairs:
        if isinstance(name, str) and is_text(name):
            yield (*at, name), item, True
            yield from _items(item, (*at, name))
        else:
            yield (*at, show(name)), item, False


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip() or is_text(value)
    if isinstance(value, int):
        return abs(value) < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, dict | list)
