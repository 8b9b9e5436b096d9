"""User messages that contain their own answer: the model went on as the assistant."""

import re
from collections.abc import Iterator

from magpie_ray.acceptance.assistant_phrases import expression, phrases
from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance

# Markup around a label, and characters between its line break and its colon.
_MARKS, _LONGEST_LABEL = " \t#*_>", 30
_HEADING = re.compile(r"\n#{1,6} ([^\n:]{2,30})(?=\n)")
# "A:" answers a "Q:"; it is not the first of several choices.
_SHORT_ANSWER = re.compile(r"\n\**A\**[.:](?=[*\s]|$)(?![^\n]*\n+\**B\**[.:)])", re.IGNORECASE)
_SHORT_QUESTION = re.compile(r"(?:\A|\n)\**Q\d{0,2}\**[.:]", re.IGNORECASE)
# An answer to be filled in: nothing, a blank, a placeholder.
_OPEN = re.compile(r"[\s*_.…]*(?:$|[<\[{(])|[*\s]*(?:…|\.\.|__)")


def make_rule(_on: bool, context: RuleContext) -> Rule:
    """A user message that answers its own question.

    An open answer ("A:" at the end, a blank) belongs to the question, and so do questions and answers after
    an instruction to work on them.
    """
    role_words = context.role_words
    # The role's name on a line of its own, or glued to the end of the question: its markers got lost.
    names = "|".join(map(re.escape, role_words)) or r"(?!)"
    bare = re.compile(rf"(?:[?!。？！…)\]\"'”»*`]\s*|\.\s+)(?:{names})[ \t]*(?:\n\s*\S|$)")
    labels = frozenset(phrases("answer_labels"))
    question_label = re.compile(
        rf"(?:\A|\n)[ \t#*_>]*+(?:{'|'.join(phrases('question_labels'))})"
        r"[ \t]*\d{0,2}(?:[*_]{0,2}[ \t]*:|\.[ *])",
        re.IGNORECASE,
    )
    discussed = expression("discussed", re.IGNORECASE)

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if utterance.role != "user":
            return None
        text = utterance.text.strip()
        if any(word in text for word in role_words) and bare.search(text):
            return "own_answer"
        return "own_answer" if "\n" in text and is_answered(text.replace("：", ":")) else None

    def is_answered(text: str) -> bool:
        answers = sorted(_answers(text, labels))
        if not answers:
            return False
        first, (last, end) = answers[0][0], answers[-1]
        answer = text[end:].strip()
        if _OPEN.match(answer) or ("\n" in answer and answer.endswith(("?", "？", "؟"))):
            return False
        question = question_label.search(text)
        if question and question.start() < last:
            # An exercise from the beginning of the message; after other words it is material.
            return question.start() == 0
        return not discussed.search(text, 0, first)

    return rule


def _answers(text: str, labels: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Where answers' labels begin and end: before a colon, as a heading, or as the "A" after a "Q"."""
    colon = -1
    for part in text.split(":")[:-1]:
        start, colon = colon + 1, colon + 1 + len(part)
        newline = part.rfind("\n", -_LONGEST_LABEL)
        if newline >= 0 and part[newline:].strip().strip(_MARKS).lower() in labels:
            yield start + newline, colon + 1
    if "\n#" in text:
        for heading in _HEADING.finditer(text):
            if heading[1].strip(_MARKS).lower() in labels:
                yield heading.span()
    if _SHORT_QUESTION.match(text):
        yield from (short.span() for short in _SHORT_ANSWER.finditer(text))


REMEDIES = {
    "own_answer": "the model does not end the user's turn: check the stop ids with `magpie-ray "
    "template`, or set a system_prompt; where answers are wanted there, set "
    "acceptance.rules.own_answer: false"
}
