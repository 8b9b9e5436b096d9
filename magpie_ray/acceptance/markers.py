"""Messages in which a piece of a chat template shows: the model went on into another turn."""

from collections.abc import Sequence

from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance


def role_marker(markers: Sequence[str], special_token_ids: frozenset[int]) -> Rule:
    """A piece of the build's chat template inside the message, or the reasoning before it."""

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if not special_token_ids.isdisjoint(utterance.token_ids):
            return "role_marker"
        texts = (utterance.text, utterance.reasoning)
        return "role_marker" if any(marker in text for marker in markers for text in texts) else None

    return rule
