"""The small files beside a model's weights, read by this project or by the libraries that it uses.

Owns: finding and reading them, and what is wrong with a broken one, by its name. Whether a broken file
matters is the caller's decision. Invariant: a file of any content gives a value or a ModelError.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from magpie_ray.errors import ModelError

# The file of a name in a model's folder or repository; None where the model lacks it.
Find = Callable[[str], Path | None]

# Files of models that read images or sound, and may hold the chat template. The first one counts.
TEMPLATE_HOLDERS = ("processor_config.json", "chat_template.json")
SMALL_FILES = (
    *("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", *TEMPLATE_HOLDERS, "preprocessor_config.json"),
)
VOCABULARIES = ("tokenizer.json", "tekken.json")
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}


def finder(location: str, revision: str | None) -> Find:
    """Finds files in a folder, or in a repository of the hub (through the cache).

    Finding raises ModelError where the hub can't be asked.
    """
    folder = Path(location)
    if folder.is_dir():
        return lambda name: folder / name if os.path.lexists(folder / name) else None
    from transformers.utils.hub import cached_file  # slow to import

    def find(name: str) -> Path | None:
        try:
            found = cached_file(
                location, name, revision=revision, _raise_exceptions_for_missing_entries=False
            )
        except OSError as exc:
            reason = str(exc).strip().partition("\n")[0]
            raise ModelError(f"{name} of model {location!r} can't be had from the hub: {reason}") from exc
        return Path(found) if found else None

    return find


def parse(path: Path) -> Any:
    """The value in a JSON file, in UTF-8. ModelError says what is wrong with the file."""
    text = _read(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{path.name} is not valid JSON ({exc})") from exc


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. ModelError says what is wrong with the file."""
    value = parse(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} holds {kind(value)}, must hold an object")
    return value


def problems(find: Find, names: Sequence[str]) -> Iterator[str]:
    """What is wrong with those of the files that the model has, each as a clause."""
    for name in names:
        if path := find(name):
            try:
                (read_object if path.suffix == ".json" else _read)(path)
            except ModelError as exc:
                yield str(exc)


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    return _KINDS.get(type(value), "null" if value is None else "an object")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ModelError(f"{path.name} can't be read ({exc.strerror or exc})") from exc
    except UnicodeDecodeError as exc:
        raise ModelError(f"{path.name} is not UTF-8 ({exc.reason} at byte {exc.start})") from exc
