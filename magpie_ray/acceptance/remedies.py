"""What to try when messages are rejected for one reason again and again."""

from magpie_ray.acceptance.endings import CONTEXT_FULL, UNFINISHED_REASONING
from magpie_ray.types import Role


def remedy(reason: str, role: Role) -> str:
    """What to try when messages of the role are rejected for the reason again and again."""
    return _REMEDIES.get(reason, _NO_REMEDY).format(role=role)


_REMEDIES = {
    "empty": "the model ends the turn at once: check the chat format with `magpie-ray template`, "
    "raise sampling.{role}.temperature, or set a system_prompt",
    "truncated": "raise sampling.{role}.max_tokens; a model that never ends its turns is usually a base "
    "model: use the instruct or chat version, and check the stop ids with `magpie-ray template`",
    "role_marker": "the model runs on into another turn: check the stop ids with `magpie-ray template`, "
    "or lower sampling.{role}.temperature",
    UNFINISHED_REASONING: "answers end before their reasoning does: raise sampling.{role}.max_tokens, or set "
    "model.thinking: false",
    CONTEXT_FULL: "the conversation outgrows the model's context: raise engine.max_model_len, lower n_turns "
    "or max_tokens, or set acceptance.context_full: stop, so that such rows end with the turns they have",
}
_NO_REMEDY = "look at the example, and loosen the rule or change the prompts"
