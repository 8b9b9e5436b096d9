"""Import paths: from "module:name" to the object of the user's code that it names.

Owns: the form of such a path, the search for its module, and the errors. Invariant: the current directory is
searched first, as `python -m` does. Ray takes this directory, or a submitted job's working directory, to
every worker, so a path means the same everywhere.
"""

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from magpie_ray.errors import ConfigError
from magpie_ray.utils.user_code import user_code

_MAIN = "__main__"
IMPORT_PATH_FORM = "package.module:name, such as my_rules:no_lists for the function no_lists in my_rules.py"


def is_import_path(text: object) -> TypeGuard[str]:
    """Whether this is text of the form "module:name", both dotted names of Python."""
    if not isinstance(text, str):
        return False
    module, separator, name = text.partition(":")
    return bool(separator) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def load_attribute(path: str, *, key: str) -> Any:
    """The object that the import path names. Runs the module's code.

    Raises:
        ConfigError: the module can't be imported or has no such name. Names the config's `key`.
    """
    if not is_import_path(path):
        raise ConfigError(f"{key}: got {path!r}, must be {IMPORT_PATH_FORM}")
    name, _, attribute = path.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    with user_code() as is_its_own:
        try:
            value: Any = importlib.import_module(name)
        except BaseException as exc:
            if not is_its_own(exc):
                raise
            if isinstance(exc, ModuleNotFoundError) and f"{name}.".startswith(f"{exc.name}."):
                raise ConfigError(
                    f"{key}: got {path!r}, but there is no module {exc.name} in {here} nor where Python "
                    "looks: run the command from the folder that holds it (ray job submit --working-dir "
                    "takes it), or install it on every node"
                ) from exc
            raise ConfigError(
                f"{key}: got {path!r}, but importing {name} failed: {type(exc).__name__}: {exc}"
            ) from exc
    for part in attribute.split("."):
        if not hasattr(value, part):
            hint = ""
            if name == _MAIN:
                hint = ": it was in the script that began the build. Run that script, or keep it in a module"
            raise ConfigError(f"{key}: got {path!r}, but {name} ({value!r}) has no {part}{hint}")
        value = getattr(value, part)
    return value


def code_of_main(paths: Iterable[str]) -> dict[str, Any]:
    """What these import paths name in the program that runs, by name: another process runs another program.

    To be pickled with cloudpickle, which takes the code of such functions along.
    """
    names = {path.partition(":")[2].partition(".")[0] for path in paths if path.startswith(f"{_MAIN}:")}
    return {name: getattr(sys.modules[_MAIN], name) for name in names}


def take_code_of_main(code: Mapping[str, Any]) -> None:
    """From now on import paths find in this process what `code_of_main` gave in another."""
    for name, value in code.items():
        setattr(sys.modules[_MAIN], name, value)
