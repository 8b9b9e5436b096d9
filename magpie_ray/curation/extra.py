"""The libraries of the extra `curate`, imported where they are used."""

import importlib
from typing import Any

from magpie_ray.errors import PreflightError


def curate_library(name: str) -> Any:
    """The module of this name. PreflightError says what to install where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise PreflightError(f'{name} is not installed here: `pip install "magpie-ray[curate]"`') from exc
