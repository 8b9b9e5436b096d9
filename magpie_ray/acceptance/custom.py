"""The user's own rules: functions by import path, whose result is checked at each call."""

import inspect
from collections.abc import Mapping
from typing import Any

from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance
from magpie_ray.errors import ConfigError, RuleError
from magpie_ray.utils.import_path import load_attribute
from magpie_ray.utils.text import shortened
from magpie_ray.utils.user_code import user_code

_KEY = "acceptance.custom"
# Every file's footer counts rejections by reason, so a reason is a short name and not a sentence.
_LONGEST_REASON = 60
# Counts by reason travel with every report of an actor and stand in every footer.
_MOST_REASONS = 200
_SHOWN_CHARACTERS = 200


def custom_rule(path: str, thresholds: Mapping[str, Any], *, most_reasons: int = _MOST_REASONS) -> Rule:
    """The function at this import path as a rule.

    ConfigError when it does not exist, or does not take a message, a conversation and these thresholds. The
    rule raises RuleError when the function fails, returns neither None nor a reason, or more different
    reasons than `most_reasons`.
    """
    function = load_attribute(path, key=_KEY)
    _check_signature(function, path, thresholds)
    reasons = set[str]()

    def rule(utterance: Utterance, dialogue: Dialogue) -> str | None:
        with user_code() as is_its_own:
            try:
                reason = function(utterance, dialogue, **thresholds)
            except BaseException as exc:
                if not is_its_own(exc):
                    raise
                raise RuleError(
                    f"{_KEY}: {path} failed with {type(exc).__name__}: {exc}, at "
                    f"{_where(utterance, dialogue)}"
                ) from exc
        if reason is None:
            return None
        if not isinstance(reason, str) or not reason.isprintable() or not 0 < len(reason) <= _LONGEST_REASON:
            raise RuleError(
                f"{_KEY}: {path} returned {_shown(reason)}, must be None or a reason of at most "
                f"{_LONGEST_REASON} characters, such as 'too_polite', at {_where(utterance, dialogue)}"
            )
        reasons.add(reason)
        if len(reasons) > most_reasons:
            raise RuleError(
                f"{_KEY}: {path} has returned more than {most_reasons} different reasons, such as "
                f"{_shown(reason)}: a reason is one of a few names, without values such as a length"
            )
        return reason

    return rule


def _check_signature(function: Any, path: str, thresholds: Mapping[str, Any]) -> None:
    if not callable(function):
        raise ConfigError(
            f"{_KEY}: got {path}, which is {_shown(function)}, must be a function (message, conversation)"
        )
    try:
        inspect.signature(function).bind(None, None, **thresholds)
    except ValueError:  # a built-in function without a signature
        return
    except TypeError as exc:
        keywords = [f"{name}={value!r}" for name, value in thresholds.items()]
        arguments = ", ".join(["message", "conversation", *keywords])
        raise ConfigError(
            f"{_KEY}: {path} can't be called with ({arguments}): {exc}; name its thresholds in the config as "
            "the function's keywords"
        ) from exc


def _where(utterance: Utterance, dialogue: Dialogue) -> str:
    turn = len(dialogue.messages) // 2 + 1
    return f"the {utterance.role}'s message of turn {turn}: {_shown(utterance.text)}"


def _shown(value: object) -> str:
    return shortened(repr(value), _SHOWN_CHARACTERS)
