"""Messages that show nothing."""

from magpie_ray.acceptance.rule import BuiltinRule, Dialogue, Utterance

# Zero-width and directional marks, which `str.strip` does not take for white space.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))


def empty(utterance: Utterance, _: Dialogue) -> str | None:
    """Nothing visible: white space and invisible marks alone."""
    text = utterance.text.strip()
    # Most texts begin with a visible character, and need no copy.
    if text and ord(text[0]) not in _INVISIBLE:
        return None
    return None if text.translate(_INVISIBLE).strip() else "empty"


RULE = BuiltinRule(
    key="empty",
    build=lambda _, context: empty,
    remedies={
        "empty": "the model ends the turn at once: check the chat format with `magpie-ray template`, "
        "raise sampling.{role}.temperature, or set a system_prompt"
    },
)
