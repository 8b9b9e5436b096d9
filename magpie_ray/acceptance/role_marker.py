"""Messages that contain a piece of a chat template: the model ran on into another turn."""

import re
from collections.abc import Mapping, Sequence

from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance
from magpie_ray.config.acceptance import RoleMarkerRule

# Markers of the known families as plain text: a model that was trained on other models' output may spell out
# a marker that is no token of its own.
_OTHER_FORMATS = re.compile(
    r"<[|｜]\w[\w▁ -]{0,30}[|｜]>"  # ChatML, Llama 3, Phi, Command R, DeepSeek, gpt-oss
    r"|\[\|\w+\|\]"  # EXAONE
    r"|</?(?:start|end)_of_turn>"  # Gemma
    r"|\[/?INST\]|<</?SYS>>"  # Llama 2, Mistral
    r"|</s>(?=\s*(?:$|<s>|\[INST))"  # not HTML's "strike through", which text follows
    r"|#{2,3} (?:(?:Human|Assistant|User|System) ?:|(?:Human|User)\n)"  # Vicuna and its kin
)
# Each match of the expression contains one of these, which are found faster; single characters fastest.
_HINTS = {
    "|": ("<|", "[|"),
    "｜": ("<｜",),
    "]": ("INST]",),
    ">": ("_of_turn>", "SYS>>", "</s>"),
    "#": ("##",),
}
_CODE = re.compile(r"```.*?(?:```|\Z)|``.+?``|`[^`\n]+`", re.DOTALL)
_QUOTES = "\"'`“”‘’«»„「"


def make_rule(thresholds: RoleMarkerRule, context: RuleContext) -> Rule:
    """A marker or special token of the build's chat format, in the message or in the reasoning before it.

    With `thresholds.other_formats`, a marker of any known format is rejected, too, unless it is the subject
    of the text: in code, in quotes, or as a word of a sentence.
    """
    by_beginning: dict[str, list[str]] = {}
    for marker in context.markers:
        by_beginning.setdefault(marker[0], []).append(marker)

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if not context.special_token_ids.isdisjoint(utterance.token_ids):
            return "role_marker"
        for text in (utterance.text, utterance.reasoning):
            if text and (
                _contains(text, by_beginning)
                or (thresholds.other_formats and _contains(text, _HINTS) and _leaks(text))
            ):
                return "role_marker"
        return None

    return rule


def _contains(text: str, markers: Mapping[str, Sequence[str]]) -> bool:
    """Whether one of the markers is in the text. Each is listed under a character that it contains."""
    for character, candidates in markers.items():
        if character in text:
            for marker in candidates:
                if marker in text:
                    return True
    return False


def _leaks(text: str) -> bool:
    """Whether the text contains a marker that is not its subject."""
    if "`" in text:
        text = _CODE.sub("`code`", text)
    return any(not _is_mentioned(text, *match.span()) for match in _OTHER_FORMATS.finditer(text))


def _is_mentioned(text: str, start: int, end: int) -> bool:
    """Whether the marker is the subject of the text: in quotes, or between two words of a line."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if text[start] == "#":
        return before[-1:] not in ("", "\n")
    if before and before[-1] in _QUOTES:
        return after[:1] in _QUOTES
    in_sentence = before[-1:] == " " and (before[-2:-1].isalnum() or before[-2:-1] in ",;/")
    goes_on = after[:1] in ",.;:?!)" or (after[:1] == " " and after[1:].islower()) or after[:1] == "s"
    return in_sentence and after != "" and goes_on


REMEDIES = {
    "role_marker": "the model runs on into another turn: check the stop ids with `magpie-ray template`, "
    "or lower sampling.{role}.temperature"
}
