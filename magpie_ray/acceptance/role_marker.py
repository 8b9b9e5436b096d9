"""Messages in which a piece of a chat template shows: the model went on into another turn."""

import re
from collections.abc import Mapping, Sequence

from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance

# What the known families write around turns, as plain text: a model that was trained on other models' output
# may spell out a marker that is no token of its own.
_OTHERS = re.compile(
    r"<[|｜]\w[\w▁ -]{0,30}[|｜]>"  # ChatML, Llama 3, Phi, Command R, DeepSeek, gpt-oss
    r"|\[\|\w+\|\]"  # EXAONE
    r"|</?(?:start|end)_of_turn>"  # Gemma
    r"|\[/?INST\]|<</?SYS>>"  # Llama 2, Mistral
    r"|</s>(?=\s*(?:$|<s>|\[INST))"  # not HTML's "strike through", which goes on
    r"|#{2,3} (?:(?:Human|Assistant|User|System) ?:|(?:Human|User)\n)"  # Vicuna and its kin
)
# Each match of the expression holds one of these, which are looked for faster; single characters fastest.
_HINTS = {
    "|": ("<|", "[|"),
    "｜": ("<｜",),
    "]": ("INST]",),
    ">": ("_of_turn>", "SYS>>", "</s>"),
    "#": ("##",),
}
_CODE = re.compile(r"```.*?(?:```|\Z)|``.+?``|`[^`\n]+`", re.DOTALL)
_QUOTES = "\"'`“”‘’«»„「"


def role_marker(
    markers: Sequence[str], special_token_ids: frozenset[int], *, other_formats: bool = True
) -> Rule:
    """A piece of the build's chat template in a message, or in the reasoning before it; or of any known one.

    Those of other families (with `other_formats`) may be talked about: in code, in quotes, or as a word of a
    sentence.
    """
    by_beginning: dict[str, list[str]] = {}
    for marker in markers:
        by_beginning.setdefault(marker[0], []).append(marker)

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if not special_token_ids.isdisjoint(utterance.token_ids):
            return "role_marker"
        for text in (utterance.text, utterance.reasoning):
            if text and (
                _holds(text, by_beginning) or (other_formats and _holds(text, _HINTS) and _leaks(text))
            ):
                return "role_marker"
        return None

    return rule


def _holds(text: str, markers: Mapping[str, Sequence[str]]) -> bool:
    """Whether one of the markers is in the text, each under a character that it holds."""
    for character, with_it in markers.items():
        if character in text:
            for marker in with_it:
                if marker in text:
                    return True
    return False


def _leaks(text: str) -> bool:
    """Whether a marker stands where it is not talked about."""
    if "`" in text:
        text = _CODE.sub("`code`", text)
    return any(not _is_mentioned(text, *match.span()) for match in _OTHERS.finditer(text))


def _is_mentioned(text: str, start: int, end: int) -> bool:
    """Whether what stands between two words of a line, or in quotes, is the subject and no marker."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if text[start] == "#":
        return before[-1:] not in ("", "\n")
    if before and before[-1] in _QUOTES:
        return after[:1] in _QUOTES
    in_sentence = before[-1:] == " " and (before[-2:-1].isalnum() or before[-2:-1] in ",;/")
    goes_on = after[:1] in ",.;:?!)" or (after[:1] == " " and after[1:].islower()) or after[:1] == "s"
    return in_sentence and after != "" and goes_on
