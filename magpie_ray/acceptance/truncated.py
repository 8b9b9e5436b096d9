"""Messages that end before they are complete: cut by max_tokens or the context, or given up by the model."""

import re

from magpie_ray.acceptance.assistant_phrases import expression
from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance

CONTEXT_FULL = "context_full"
# Characters at the end of a message that may announce something.
_END = 160
NO_TEXT = "no_text"  # a row of a score pass lacks the text that is asked about
UNFINISHED_REASONING = "unfinished_reasoning"  # no message follows the reasoning, so no rule sees one


def make_rule(_on: bool, context: RuleContext) -> Rule:
    """A cut message of the user; where the context says so, also one of the assistant.

    Also a user message that announces something and ends: "Summarize the following text:".
    """
    answers = context.rejects_cut_answers
    announcement = expression("announcements", re.IGNORECASE)

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if utterance.finish_reason != "length":
            if utterance.role == "user" and (end := utterance.text.rstrip()[-_END:]).endswith((":", "：")):
                return "truncated" if announcement.search(end) else None
            return None
        if not (answers or utterance.role == "user"):
            return None
        return CONTEXT_FULL if utterance.filled_context else "truncated"

    return rule


REMEDIES = {
    "truncated": "raise sampling.{role}.max_tokens; a model that never ends its turns is usually a base "
    "model: use the instruct or chat version, and check the stop ids with `magpie-ray template`; "
    "sampling.user.first_line_only cuts off what messages announce",
    UNFINISHED_REASONING: "answers end before their reasoning does: raise sampling.{role}.max_tokens, or "
    "set model.thinking: false",
    CONTEXT_FULL: "the conversation outgrows the model's context: raise engine.max_model_len, lower "
    "n_turns or max_tokens, or set acceptance.context_full: stop, so that such rows end with the turns "
    "they have",
    NO_TEXT: "the rows of the source lack a text that a column asks about: score another source, or name "
    "another text",
}
