"""A user's own chat format: a function of theirs, named by its import path, in place of `derive`.

What always holds: what comes out is a ChatFormat that does what the build asks for, so that workers, records
and the fingerprint never know whose it is.
"""

import datetime
import inspect
from collections.abc import Sequence
from typing import Any

from magpie_ray.chat_format.derivation import ChatFormat
from magpie_ray.errors import ConfigError, MagpieError
from magpie_ray.utils.import_path import load_attribute

_KEY = "model.chat_format"


def custom_format(
    path: str,
    tokenizer: Any,
    *,
    system_prompts: Sequence[str] = (),
    date: datetime.date | None = None,
    thinking: bool | None = None,
    eos_token_ids: Sequence[int] = (),
) -> ChatFormat:
    """What the function gives for a tokenizer. It is handed those of the other arguments that it takes.

    ConfigError when it can't be imported, fails, gives no ChatFormat, or one without what is asked for.
    """
    function = load_attribute(path, key=_KEY)
    if not callable(function):
        raise ConfigError(
            f"{_KEY}: got {path!r}, which is {function!r}, must be a function: tokenizer -> ChatFormat"
        )
    asked = {
        "system_prompts": tuple(system_prompts),
        "date": date,
        "thinking": thinking,
        "eos_token_ids": tuple(eos_token_ids),
    }
    taken = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken)
    names = {parameter.name for parameter in taken}
    try:
        form = function(tokenizer, **{n: value for n, value in asked.items() if takes_all or n in names})
    except MagpieError:
        raise
    except Exception as exc:
        raise ConfigError(f"{_KEY}: {path} failed: {type(exc).__name__}: {exc}") from exc
    if type(form) is not ChatFormat:
        raise ConfigError(f"{_KEY}: {path} gave {form!r}, must give a magpie_ray.ChatFormat")
    if thinking and form.reasoning is None:
        raise ConfigError(
            f"{_KEY}: {path} gave a format without reasoning, and model.thinking is true: let the function "
            "take thinking and hand it on to derive, or set model.thinking: false"
        )
    return form
