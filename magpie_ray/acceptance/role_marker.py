"""Messages that contain a piece of a chat template: the model ran on into another turn."""

import re
from collections.abc import Mapping, Sequence

from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance
from magpie_ray.config.acceptance import RoleMarkerRule
from magpie_ray.types import Role

# Markers of the known families as plain text: a model that was trained on other models' output may spell out
# a marker that is no token of its own.
_OTHER_FORMATS = re.compile(
    r"<[|｜]\w[\w▁ -]{0,30}[|｜]>"  # ChatML, Llama 3, Phi, Command R, DeepSeek, gpt-oss
    r"|\[\|\w+\|\]"  # EXAONE
    r"|</?(?:start|end)_of_turn>"  # Gemma
    r"|◁/?think▷|<function=\w+>"  # Kimi; calls of Llama and Qwen
    r"|\[/?(?:INST|THINK|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\]|<</?SYS>>"  # Llama 2, Mistral
    r"|</s>(?=\s*(?:$|<s>|\[INST))"  # not HTML's "strike through", which text follows
    r"|#{2,3} (?:(?:Human|Assistant|User|System) ?:|(?:Human|User)\n)"  # Vicuna and its kin
)
# Tags around reasoning and calls of tools, which not every template names. A text may explain them or ask for
# them, so the place of a tag counts.
_TAG = re.compile(r"<(/?)(think|thinking|tool_call|tool_response|function_call)>")
_BORDERS, _SENTENCE_ENDS = ("", "\n", ".", "!", "?"), (". ", "! ", "? ")
# Each match of an expression contains one of these, which are found faster; single characters fastest.
_HINTS = {
    "|": ("<|", "[|"),
    "｜": ("<｜",),
    "▷": ("think▷",),
    "]": ("INST]", "THINK]", "[TOOL_", "_TOOLS]"),
    ">": ("_of_turn>", "SYS>>", "</s>", "think>", "thinking>", "_call>", "_response>", "<function="),
    "#": ("##",),
}
_CODE = re.compile(r"```.*?(?:```|\Z)|``.+?``|`[^`\n]+`", re.DOTALL)
_QUOTES = "\"'`“”‘’«»„「"


def make_rule(thresholds: RoleMarkerRule, context: RuleContext) -> Rule:
    """A marker or special token of the build's chat format, in the message or in the reasoning before it.

    With `thresholds.other_formats`, a marker of any known format or a tag of reasoning or of a tool's call is
    rejected, too, unless it is the subject of the text: in code, in quotes, or as a word of a sentence.
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
                or (thresholds.other_formats and _contains(text, _HINTS) and _leaks(text, utterance.role))
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


def _leaks(text: str, role: Role) -> bool:
    """Whether the text contains a marker or a tag that is not its subject."""
    if "`" in text:
        text = _CODE.sub("`code`", text)
    if any(not _is_mentioned(text, *marker.span()) for marker in _OTHER_FORMATS.finditer(text)):
        return True
    return any(_is_leaked(tag, role) for tag in _TAG.finditer(text.strip()))


def _is_leaked(tag: re.Match[str], role: Role) -> bool:
    """Whether a tag stands where a model writes it.

    That is at the beginning of the text; in an answer also at that of a line or behind a sentence; before the
    JSON of a call; and, for a closing tag, at an end where nothing opened it.
    """
    text, span = tag.string, tag.span()
    before, after = text[: tag.start()], text[tag.end() :]
    if tag[1]:
        ends = before[-1:].isalnum() or before[-1:] in _BORDERS or after[:1] in _BORDERS
        return ends and f"<{tag[2]}>" not in before and not _is_mentioned(text, *span)
    if not before:
        return not (after[:1] == " " and after[1:2].islower())
    begins = before[-1] == "\n" or before[-2:] in _SENTENCE_ENDS
    is_call = tag[2].endswith("_call") and after.lstrip()[:1] == "{"
    return begins and (role == "assistant" or is_call) and not before.rstrip().endswith(":")


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
