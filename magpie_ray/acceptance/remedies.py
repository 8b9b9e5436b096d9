"""What to try when messages are rejected for one reason again and again."""

from magpie_ray.acceptance.length import CONTEXT_FULL, UNFINISHED_REASONING
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
    "not_text": "lower sampling.{role}.temperature or top_p, which let in rare tokens; where they "
    "are meant, raise the thresholds of acceptance.rules.not_text",
    "too_short": "lower acceptance.rules.length.min_{role}, or ask for more in a system_prompt",
    "too_long": "raise acceptance.rules.length.max_{role}, or ask for less in a system_prompt",
    "repetition": "raise sampling.{role}.temperature, or set sampling.{role}.repetition_penalty to 1.05; "
    "where repetition is meant, loosen acceptance.rules.repetition",
    "own_answer": "the model does not end the user's turn: check the stop ids with `magpie-ray template`, "
    "or set a system_prompt; where answers are wanted there, set acceptance.rules.own_answer: false",
    "self_talk": "the model takes the user's turn for its own: check with `magpie-ray template` what "
    "stands before it, and set a system_prompt that describes the user",
    "refusal": "set another system_prompt, or lower sampling.{role}.temperature; where refusals are "
    "wanted, set acceptance.rules.refusal: false",
    "repeated_turn": "set acceptance.retry_from: last_turn, so that only the turn is made again; or raise "
    "sampling.user.temperature, set a system_prompt that asks for follow-up questions, or lower n_turns",
    "language": "ask for the language in the system_prompt, in that language; models write best in those "
    "they were trained for; or loosen acceptance.rules.language.min_confidence",
    CONTEXT_FULL: "the conversation outgrows the model's context: raise engine.max_model_len, lower n_turns "
    "or max_tokens, or set acceptance.context_full: stop, so that such rows end with the turns they have",
}
_NO_REMEDY = "look at the example, and loosen the rule or change the prompts"
