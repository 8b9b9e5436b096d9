"""The rules of a build, from its config and its chat format, in the order in which they are tried."""

from collections.abc import Sequence

from magpie_ray.acceptance.assistant_voice import refusal, self_talk
from magpie_ray.acceptance.custom import custom_rule
from magpie_ray.acceptance.language import language, require_detector
from magpie_ray.acceptance.length import empty, length, truncated
from magpie_ray.acceptance.not_text import not_text
from magpie_ray.acceptance.own_answer import own_answer
from magpie_ray.acceptance.repeated_turn import repeated_turn
from magpie_ray.acceptance.repetition import repetition
from magpie_ray.acceptance.role_marker import role_marker
from magpie_ray.acceptance.rule import Rule
from magpie_ray.config.sections import AcceptanceConfig


def build_rules(
    settings: AcceptanceConfig,
    *,
    markers: Sequence[str] = (),
    special_token_ids: frozenset[int] = frozenset(),
    role_words: Sequence[str] = (),
) -> dict[str, Rule]:
    """The rules that are on, by name; the user's own come last, by import path.

    markers, special_token_ids, role_words: the chat format's. ConfigError when a rule of the user's own can't
    be imported, or the detector of languages is not installed.
    """
    on, rules = settings.rules, dict[str, Rule]()
    if on.empty:
        rules["empty"] = empty
    if on.truncated:
        cut_answers = settings.truncated_response == "reject"
        rules["truncated"] = truncated(frozenset({"user", "assistant"} if cut_answers else {"user"}))
    if on.role_marker:
        rules["role_marker"] = role_marker(markers, special_token_ids, **on.role_marker.model_dump())
    if on.not_text:
        rules["not_text"] = not_text(**on.not_text.model_dump())
    if on.length:
        rules["length"] = length(**on.length.model_dump())
    if on.repetition:
        rules["repetition"] = repetition(**on.repetition.model_dump())
    if on.own_answer:
        rules["own_answer"] = own_answer(role_words)
    if on.self_talk:
        rules["self_talk"] = self_talk
    if on.refusal:
        rules["refusal"] = refusal(**on.refusal.model_dump())
    if on.repeated_turn:
        rules["repeated_turn"] = repeated_turn(**on.repeated_turn.model_dump())
    if on.language:
        rules["language"] = language(
            wanted=on.language.wanted or (),
            by_prompt=on.language.by_prompt,
            min_confidence=on.language.min_confidence,
            min_letters=on.language.min_letters,
        )
    for path, thresholds in settings.custom_rules:
        rules[path] = custom_rule(path, thresholds)
    return rules


def check_rules(settings: AcceptanceConfig) -> None:
    """ConfigError where `build_rules` would raise one, before anything else is loaded."""
    if settings.rules.language:
        require_detector()
    for path, thresholds in settings.custom_rules:
        custom_rule(path, thresholds)
