"""A user's own chat format: a function, named by its import path, in place of `derive`.

Invariant: the result is a ChatFormat that serves the build. Workers, records and the fingerprint treat it as
a derived format.
"""

import datetime
import inspect
from collections.abc import Sequence
from typing import Any

from magpie_ray.chat_format.format import ChatFormat
from magpie_ray.errors import ConfigError, MagpieError
from magpie_ray.utils.import_path import load_attribute
from magpie_ray.utils.user_code import user_code

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
    """The function's format for a tokenizer. The function gets those other arguments that it takes.

    Raises ConfigError when the function can't be imported, fails, returns no ChatFormat, or returns one
    without reasoning though `thinking` is true.
    """
    function = load_attribute(path, key=_KEY)
    if not callable(function):
        raise ConfigError(
            f"{_KEY}: got {path!r}, which is {function!r}, must be a function: tokenizer -> ChatFormat"
        )
    arguments = {
        "system_prompts": tuple(system_prompts),
        "date": date,
        "thinking": thinking,
        "eos_token_ids": tuple(eos_token_ids),
    }
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    taken = {name: value for name, value in arguments.items() if takes_all or name in names}
    with user_code() as is_its_own:
        try:
            form = function(tokenizer, **taken)
        except BaseException as exc:
            if isinstance(exc, MagpieError) or not is_its_own(exc):
                raise
            raise ConfigError(f"{_KEY}: {path} failed: {type(exc).__name__}: {exc}") from exc
    if type(form) is not ChatFormat:
        raise ConfigError(f"{_KEY}: {path} gave {form!r}, must give a magpie_ray.ChatFormat")
    if thinking and form.reasoning is None:
        raise ConfigError(
            f"{_KEY}: {path} gave a format without reasoning, and model.thinking is true: let the function "
            "take thinking and hand it on to derive, or set model.thinking: false"
        )
    return form
