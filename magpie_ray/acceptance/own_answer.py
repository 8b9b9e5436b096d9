"""User messages that contain their own answer: the model went on as the assistant."""

import re
from collections.abc import Iterator

from magpie_ray.acceptance.assistant_phrases import expression, phrases
from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance

# Markup around a label, and characters between its line break and its colon.
_MARKS, _LONGEST_LABEL = " \t#*_>", 30
_HEADING = re.compile(r"\n#{1,6} ([^\n:]{2,30})(?=\n)")
# "A:" answers a "Q:"; it is not the first of several choices.
_SHORT_ANSWER = re.compile(r"(?:\n|[?？] +)\**A\**[.:](?=[*\s]|$)(?![^\n]*\n+\**B\**[.:)])", re.IGNORECASE)
# Behind a question mark it needs no "Q:". Then it is the only one, and not the first of several choices.
_IN_LINE = re.compile(r"[?？] +\**A\**:(?!.*\b[AB]\**[.:)])", re.DOTALL)
_IN_LINE_HINTS = ("? A:", "？ A:", "? **A:", "? **A**:")
_SHORT_QUESTION = re.compile(r"(?:\A|\n)\**Q\d{0,2}\**[.:]", re.IGNORECASE)
_COLON = re.compile(r":(?!\d)")  # not of a time
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
    forms = expression("answer_forms", re.IGNORECASE)

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if utterance.role != "user":
            return None
        text = utterance.text.strip()
        if any(word in text for word in role_words) and bare.search(text):
            return "own_answer"
        if "\n" not in text and "?" not in text and "？" not in text:
            return None
        return "own_answer" if is_answered(text.replace("：", ":")) else None

    def is_answered(text: str) -> bool:
        answers = sorted(_answers(text, labels))
        if not answers:
            return False
        first, (last, end) = answers[0][0], answers[-1]
        answer = text[end:].strip()
        in_line = text[last] != "\n"
        if _OPEN.match(answer) or (("\n" in answer or in_line) and answer.endswith(("?", "？", "؟"))):
            return False
        question = question_label.search(text)
        if in_line:
            asked = text[question.end() if question else 0 : first]
            # "Answer: yes or no" asks for a form. What follows a colon was given to work on.
            if forms.match(answer) or _COLON.search(asked):
                return False
        if question and question.start() < last:
            # An exercise from the beginning of the message; after other words it is material.
            return question.start() == 0
        return not discussed.search(text, 0, first)

    return rule


def _answers(text: str, labels: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Where answers' labels begin and end: before a colon, as a heading, or as the "A" after a "Q".

    A label before a colon stands at the beginning of a line, or behind a question mark.
    """
    colon = -1
    asks = "?" in text or "？" in text
    for part in text.split(":")[:-1]:
        start, colon = colon + 1, colon + 1 + len(part)
        border = part.rfind("\n", -_LONGEST_LABEL)
        if asks:
            border = max(border, part.rfind("?", -_LONGEST_LABEL), part.rfind("？", -_LONGEST_LABEL))
        if border >= 0 and part[border + 1 :].strip().strip(_MARKS).lower() in labels:
            yield start + border, colon + 1
    if "\n#" in text:
        for heading in _HEADING.finditer(text):
            if heading[1].strip(_MARKS).lower() in labels:
                yield heading.span()
    is_one_pair = asks and any(hint in text for hint in _IN_LINE_HINTS) and _IN_LINE.search(text)
    if is_one_pair or _SHORT_QUESTION.match(text):
        yield from (short.span() for short in _SHORT_ANSWER.finditer(text))


REMEDIES = {
    "own_answer": "the model does not end the user's turn: check the stop ids with `magpie-ray "
    "template`, or set a system_prompt; where answers are wanted there, set "
    "acceptance.rules.own_answer: false"
}
