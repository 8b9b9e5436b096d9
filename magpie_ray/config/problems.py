"""The problems of a config, in sentences: one line a problem, all of them at once.

Owns: `Problem` and `BadValueError`, which the rules of fields raise, and the translation of pydantic's errors
into lines that name the dotted key, the value and what would be right. Invariants: pydantic's words never
reach a user; no line shows a value that may be a secret.
"""

import difflib
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from magpie_ray.utils.redaction import hides_value

# Begins the names of alternatives that a value may take, which stand in pydantic's paths beside keys.
NO_KEY = "<>"

_KEY_OF_MAPPING = "[key]"  # ends pydantic's path to a key of a mapping that can't be one
_ITEM = "<item>"  # stands for any index of a list, and any key of a mapping that users name, in a path

_repr = reprlib.Repr()
_repr.maxstring = 80
_repr.maxother = 80
_repr.maxlevel = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One wrong value. at: its path below the field whose rule found it. must: the rest of the sentence."""

    value: object
    must: str
    at: tuple[str, ...] = ()


class BadValueError(ValueError):
    """Raised by the rule of a field; pydantic collects it and `problem_lines` unpacks it."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.must for problem in problems))
        self.problems = problems


def bad_value(value: object, phrase: str, *, at: tuple[str, ...] = ()) -> BadValueError:
    """The error of a field with one problem, `at` a path below it. `phrase` completes "must be ..."."""
    return BadValueError(Problem(value=value, must=f"must be {phrase}", at=at))


def show(value: object) -> str:
    """A value for a message: on one line, shortened, with YAML's words for null and the booleans."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return " ".join(_repr.repr(value).split("\n"))
    except ValueError:  # Python refuses to print integers of more than 4,300 digits.
        return "a number with thousands of digits"


def dotted(path: tuple[object, ...]) -> str:
    """The path of a key as on the command line. Keys that can't be printed are escaped."""
    return ".".join(part if isinstance(part, str) and part.isprintable() else ascii(part) for part in path)


def problem_lines(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for each problem in `error`, which validating `model` raised."""
    return [line for item in error.errors(include_url=False) for line in _lines(item, model)]


def _lines(item: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
    path = tuple(part for part in item["loc"] if not str(part).startswith(NO_KEY))
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if path[-1:] == (_KEY_OF_MAPPING,) and kind in ("value_error", "string_type"):
        path = (*path[:-2], show(value))
    match kind:
        case "value_error" if isinstance(context["error"], BadValueError):
            for problem in context["error"].problems:
                yield _line((*path, *problem.at), problem.value, problem.must)
        case "missing":
            key = dotted(path)
            yield f"{key}: is required; add it to the config, or to the command line as {key}=VALUE"
        case "extra_forbidden":
            yield _unknown_key_line(path, model)
        case "invalid_key" | "string_type":
            yield f"{dotted(path)}: keys must be text; put this one in quotes"
        case "bool_type":
            hint = ", without quotes" if isinstance(value, str) else ""
            yield _line(path, value, f"must be true or false{hint}")
        case "string_unicode":
            yield _line(path, value, "must be valid Unicode text")
        case "literal_error":
            names = context["expected"].replace("'", "").replace(" or ", ", ")
            yield _line(path, value, f"must be one of {names}")
        case _:
            # All that is left is a section (engine, sampling.user, ...) that is no mapping.
            yield _line(path, value, "must be a mapping of keys to values")


def _line(path: tuple[object, ...], value: object, must: str) -> str:
    got = "the value (not shown)" if hides_value(path) else show(value)
    return f"{dotted(path)}: got {got}, {must}"


def _unknown_key_line(path: tuple[object, ...], model: type[BaseModel]) -> str:
    # The value is not shown: under a mistyped key it may be a secret.
    key = dotted(path)
    known = list(_known_keys(model))
    parent, leaf = path[:-1], str(path[-1]).lower().replace("-", "_")
    siblings = list(dict.fromkeys(candidate[-1] for candidate in known if _is_in(parent, candidate[:-1])))
    similar = [(*parent, name) for name in difflib.get_close_matches(leaf, siblings, n=1)]
    elsewhere = [candidate for candidate in known if candidate[-1] == leaf and _ITEM not in candidate]
    nearest = min(map(len, elsewhere), default=0)  # user.temperature rather than first_tokens.temperature
    candidates = similar or [candidate for candidate in elsewhere if len(candidate) == nearest]
    if suggestions := [dotted(candidate) for candidate in candidates]:
        return f"{key}: unknown key; did you mean {' or '.join(suggestions)}?"
    where = dotted(parent) or "the top level"
    return f"{key}: unknown key; the keys of {where} are {', '.join(siblings)}"


def _is_in(path: tuple[object, ...], section: tuple[str, ...]) -> bool:
    """Whether the path is one of the section's, in which any item may stand."""
    return len(path) == len(section) and all(
        part == name or name == _ITEM for part, name in zip(path, section, strict=True)
    )


def _known_keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for field_name, field in model.model_fields.items():
        name = field.alias or field_name
        yield (*prefix, name)
        yield from _keys_within(field.annotation, (*prefix, name))


def _keys_within(annotation: Any, prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Keys of the sections that a value may be: itself, one of its alternatives, an item of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _known_keys(annotation, prefix)
        return
    below = (*prefix, _ITEM) if get_origin(annotation) in (list, dict) else prefix
    for part in get_args(annotation):
        yield from _keys_within(part, below)
