"""Messages that end before they are complete: cut by max_tokens or by the model's context."""

from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance

CONTEXT_FULL = "context_full"
UNFINISHED_REASONING = "unfinished_reasoning"  # no message follows the reasoning, so no rule sees one


def make_rule(_on: bool, context: RuleContext) -> Rule:
    """A cut message of the user; where the context says so, also one of the assistant."""
    answers = context.rejects_cut_answers

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if utterance.finish_reason != "length" or not (answers or utterance.role == "user"):
            return None
        return CONTEXT_FULL if utterance.filled_context else "truncated"

    return rule


REMEDIES = {
    "truncated": "raise sampling.{role}.max_tokens; a model that never ends its turns is usually a base "
    "model: use the instruct or chat version, and check the stop ids with `magpie-ray template`",
    UNFINISHED_REASONING: "answers end before their reasoning does: raise sampling.{role}.max_tokens, or "
    "set model.thinking: false",
    CONTEXT_FULL: "the conversation outgrows the model's context: raise engine.max_model_len, lower "
    "n_turns or max_tokens, or set acceptance.context_full: stop, so that such rows end with the turns "
    "they have",
}
