"""The user's input as one plain mapping: a YAML file, changed by `key=value` overrides.

Owns: reading YAML safely (no tags that build objects, no key twice) and the syntax of overrides. Invariants:
no module knowledge of keys; messages give line and column but never quote the file, which may hold
credentials.
"""

import datetime
import sys
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml

from magpie_ray.config.problems import dotted
from magpie_ray.config.ready import nearest_first, ready_names
from magpie_ray.errors import ConfigError

# Thousands of system prompts fit. A larger file is not a config, and would take minutes to parse.
_MAX_BYTES = 4 << 20
_SHOWN_CONFIGS = 20

# PyYAML raises errors of Python where a value contradicts its tag, as in `!!int x` or 2026-13-45.
_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, for which a key that is written twice is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[Hashable] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value!r} is there twice"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return node


def read_overrides(overrides: Sequence[str], data: Mapping[Any, object] | None = None) -> dict[Any, object]:
    """The mapping `data` (empty without one), changed by the overrides in their order.

    Raises:
        ConfigError: an override is malformed.
    """
    changed = dict(data or {})
    for override in overrides:
        _apply(changed, override)
    return changed


def read_file(path: Path) -> dict[Any, object]:
    """The mapping in the YAML file at `path`; "-" is standard input.

    Raises:
        ConfigError: the file can't be read or holds no mapping.
    """
    if path.is_fifo() and not path.is_relative_to("/dev"):  # a shell's own <(command) lies there
        raise ConfigError(
            f"{path}: is a named pipe, which may never end; give a file, or - for standard input"
        )
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as exc:
        raise ConfigError(f"{path}: there is no such config file{_those_there(path)}") from exc
    except NotADirectoryError as exc:  # also a link to a folder, unpacked by what makes no links
        hint = f"; the name alone finds the ready config: {path.stem}" if path.stem in ready_names() else ""
        raise ConfigError(f"{path}: {path.parent} is no folder{hint}") from exc
    except IsADirectoryError as exc:
        raise ConfigError(f"{path}: is a directory; give the YAML file in it") from exc
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: can't be read: {exc}") from exc
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path}: has more than {_MAX_BYTES >> 20} MiB; a config is a short YAML file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {exc.start}); save it as UTF-8") from None
    data = _parse(text, str(path))
    if data is None:
        raise ConfigError(f"{path}: is empty; the shortest config is num_rows: 1000, of generate")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {_kind(data)}; a config is a mapping such as num_rows: 1000")
    return data


def _those_there(path: Path) -> str:
    """The configs in the folder, and for a bare name the ready ones."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {folder}"
    names = sorted(file.name for file in folder.iterdir() if file.suffix in (".yaml", ".yml"))
    text = f"; {folder} has {', '.join(names[:_SHOWN_CONFIGS])}" if names else ""
    if path.name != str(path):
        return text
    ready = nearest_first(path.stem if path.suffix in (".yaml", ".yml") else path.name)
    return f"{text}; the ready configs are {', '.join(ready)}: magpie-ray init NAME writes one"


def _apply(data: dict[Any, object], override: str) -> None:
    key, separator, text = override.partition("=")
    key = key.strip()
    if not separator:
        raise ConfigError(f"{dotted((key,))}: an override is written key=value, such as num_rows=1000")
    path = key.split(".")
    if not all(path):
        raise ConfigError(
            f"{dotted((key,))}=...: is not a key; write it such as sampling.user.temperature=0.9"
        )
    if not text.strip():
        # A shell turns key="" into this, so null may not be meant.
        raise ConfigError(f"{key}=: has no value; write {key}=null, or {key}='\"\"' for empty text")
    value = _value_of(text.strip(), f"{key}=...")
    # Copied on the way down: a YAML alias can make two sections one object.
    section = data
    for depth, name in enumerate(path[:-1], start=1):
        below = section.get(name)
        if below is not None and not isinstance(below, dict):
            parent = ".".join(path[:depth])
            raise ConfigError(f"{key}: can't be set, as {parent} is {_kind(below)}; set {parent} as a whole")
        section[name] = section = dict(below or {})
    section[path[-1]] = value


def _value_of(text: str, source: str) -> object:
    """What an override says: a value of YAML on one line, or else the text as it stands.

    Mappings and lists are written in brackets. Quotes around the whole text make it text.
    """
    if text.startswith(("[", "{")):
        try:
            return _parse(text, source)
        except ConfigError as exc:
            raise ConfigError(f"{exc}; if it is text, put it in quotes: {source[:-3]}'\"...\"'") from None
    try:
        node = _StrictLoader(text).get_single_node()
        value = _parse(text, source)
    except (ConfigError, *_YAML_ERRORS):
        return text
    is_all = isinstance(node, yaml.ScalarNode) and (node.style is not None or node.value == text)
    return text if isinstance(value, datetime.date) or not is_all else value


def _parse(text: str, source: str) -> object:
    try:
        return _StrictLoader(text).get_single_data()
    except yaml.reader.ReaderError as exc:
        raise ConfigError(f"{source}: character {exc.position} can't be in YAML: {exc.reason}") from None
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = ", ".join(text for text in (exc.context, exc.problem) if text)
        raise ConfigError(f"{source}{where}: is not valid YAML: {what}") from None
    except RecursionError:
        raise ConfigError(f"{source}: is nested too deeply") from None
    except _YAML_ERRORS as exc:
        raise ConfigError(f"{source}: holds a value that does not fit its YAML type: {exc}") from None


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    return "a mapping" if isinstance(value, dict) else "a single value"
