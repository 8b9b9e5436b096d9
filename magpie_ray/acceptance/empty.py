"""Messages that show nothing."""

from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance

# Zero-width and directional marks, which `str.strip` does not take for white space.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))


def make_rule(_on: bool, _: RuleContext) -> Rule:
    """Nothing visible: white space and invisible marks alone."""

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        text = utterance.text.strip()
        # Most texts begin with a visible character, and need no copy.
        if text and ord(text[0]) not in _INVISIBLE:
            return None
        return None if text.translate(_INVISIBLE).strip() else "empty"

    return rule


REMEDIES = {
    "empty": "the model ends the turn at once: check the chat format with `magpie-ray template`, "
    "raise sampling.{role}.temperature, or set a system_prompt"
}
