"""How a chat template switches thinking on and off.

Owns: the names of the variables that switch templates, and the markers around reasoning. Invariants: a
variable counts as a switch only if it changes the rendered text. With thinking off, no reasoning stays open.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from magpie_ray.chat_format.encoder import Encoder
from magpie_ray.chat_format.format import ChatFormat, Reasoning
from magpie_ray.chat_format.markers import role_problem
from magpie_ray.chat_format.template import Template
from magpie_ray.errors import FormatError

# Variables, with the values that switch thinking on and off. A text value counts only where the template
# compares with it, because some templates write any text as an instruction.
_SWITCHES: tuple[tuple[str, Any, Any], ...] = (
    ("enable_thinking", True, False),
    ("thinking", True, False),
    ("reasoning", True, False),
    ("enable_reasoning", True, False),
    ("think", True, False),
    ("reasoning_effort", "high", "none"),
    ("reasoning_effort", "medium", "none"),
    ("reasoning_effort", "low", "none"),
    ("thinking_mode", "thinking", "chat"),
    ("thinking_mode", "enabled", "disabled"),
    ("thinking_mode", "on", "off"),
)
# Fields of an assistant message that templates read its reasoning from.
_FIELDS = ("reasoning_content", "thinking", "reasoning")
# Markers around reasoning. A template that does not write reasoning itself (it drops it from earlier answers,
# or leaves it to the model) names its markers in its source.
_PAIRS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("Here is my thought process:", "Here is my response:"),
)
_ANSWER_PAIRS = (("<response>", "</response>"), ("<answer>", "</answer>"))
REASONING_MARKS = tuple(mark for pair in _PAIRS for mark in pair if not mark[0].isalpha())


@dataclass(frozen=True, kw_only=True, slots=True)
class Thinking:
    """How a template handles thinking.

    on, off: the variables that switch thinking; empty without a switch.
    opening, closing: the texts before and behind reasoning, with white space; the `_mark` fields are without.
    All are "" where the template has no place for reasoning.
    kept: the template writes the reasoning of earlier answers too.
    on_demand: a model reasons only if a system prompt asks for it.
    """

    on: Mapping[str, Any]
    off: Mapping[str, Any]
    opening: str = ""
    opening_mark: str = ""
    closing: str = ""
    closing_mark: str = ""
    kept: bool = False
    on_demand: bool = False

    @property
    def possible(self) -> bool:
        return bool(self.closing_mark)

    def opens(self, generation: str) -> bool:
        """Whether this generation prompt leaves reasoning open."""
        return self.possible and generation.rfind(self.opening_mark) > generation.rfind(self.closing_mark)

    def closes(self, generation: str) -> bool:
        """Whether this generation prompt closes the reasoning, or has an empty block of it."""
        return self.possible and self.closing_mark in generation and not self.opens(generation)


def read_thinking(template: Template) -> Thinking:
    """How the template handles thinking. Variables that the user has set are no switches."""
    on, off = _switches(template)
    thinking = replace(template, variables={**template.variables, **on})
    knows = Thinking(
        on=on,
        off=off,
        on_demand=getattr(template.tokenizer, "reasons_on_demand", False),
        **(_written_marks(thinking) or _named_marks(thinking)),
    )
    # An empty block in front of every answer is no place for reasoning.
    return Thinking(on=on, off=off) if knows.closes(_generation(thinking)) else knows


def with_thinking(
    form: ChatFormat, thinking: bool | None, knows: Thinking, template: Template, encoder: Encoder
) -> ChatFormat:
    """The format with its generation prompt switched to thinking (True) or away from it (False)."""
    marks = [mark for mark in REASONING_MARKS if mark in encoder.markers.values() or mark in template.source]
    form = replace(form, role_markers=tuple(dict.fromkeys([*form.role_markers, *marks])))
    if thinking is None:
        return form
    generation, history = form.user_to_assistant, form.history_user_to_assistant
    if not thinking:
        closed, warning = _without_thinking(knows, generation=generation, history=history)
        if not knows.possible and history.startswith(generation):
            # A marker token in front of the answer is no part of the message: put it into the prompt.
            # So is a role that the generation prompt lacks.
            beyond, tokens = history[len(generation) :], tuple(encoder.markers.values())
            is_markup = any(token in beyond for token in tokens) or role_problem(
                generation, history, tokens=tokens, reasoning=REASONING_MARKS
            )
            closed = history if is_markup else generation
        return replace(
            form,
            user_to_assistant=closed,
            user_to_assistant_ids=encoder.piece(form.pre_query, closed),
            warnings=(*form.warnings, *([warning] if warning else [])),
        )
    opened = knows.opens(generation)
    wrapper = next((pair for pair in _ANSWER_PAIRS if all(x in template.source for x in pair)), ("", ""))
    # An answer without reasoning begins with what the history has beyond the generation prompt.
    beyond = history.removeprefix(generation) if history.startswith(generation) and not opened else ""
    reasoning = Reasoning(
        opened=opened,
        opening=knows.opening_mark,
        closing=knows.closing_mark,
        answer_opening=beyond.strip() or wrapper[0],
        answer_closing=wrapper[1],
        kept=knows.kept,
    )
    # A stop token that is part of the reasoning markers must not end the answer.
    inside = {i for text in (reasoning.opening, reasoning.closing) for i in encoder.alone(text)}
    stops = [i for i in form.assistant_stop_token_ids if i not in inside]
    withheld = next((i for i in form.assistant_stop_token_ids if i in inside), None)
    if withheld is not None:
        reasoning = replace(reasoning, answer_closing=encoder.markers.get(withheld, ""))
    if reasoning.kept:
        history, ids = generation, form.user_to_assistant_ids
        form = replace(form, history_user_to_assistant=history, history_user_to_assistant_ids=ids)
    if knows.on_demand:
        warning = (
            "Nothing in this chat format asks for reasoning: models of its kind reason when a system prompt "
            f"tells them to, between {knows.opening_mark} and {knows.closing_mark}."
        )
        form = replace(form, warnings=(*form.warnings, warning))
    return replace(form, assistant_stop_token_ids=tuple(stops), reasoning=reasoning)


def _without_thinking(thinking: Thinking, *, generation: str, history: str) -> tuple[str, str | None]:
    """The generation prompt for an answer without reasoning, and a warning or None.

    generation, history: the template's texts with its switch turned off.
    """
    if not thinking.possible or thinking.on_demand or thinking.closes(generation):
        return generation, None
    if thinking.opens(generation):
        closed, what = generation + thinking.closing, "the reasoning it opens is closed at once"
    elif thinking.off:
        return generation, None
    elif history.startswith(generation) and history[len(generation) :].strip():
        closed, what = history, "an answer begins as one of an earlier turn does"
    else:
        closed = generation + thinking.opening + thinking.closing
        what = "an empty block of reasoning stands before each answer"
    return closed, (
        f"The chat template has no switch for thinking. With model.thinking: false {what}, and answers with "
        "reasoning all the same are rejected; model.thinking: true keeps it in a column of its own."
    )


def _switches(template: Template) -> tuple[dict[str, Any], dict[str, Any]]:
    on, off = dict[str, Any](), dict[str, Any]()
    for name, yes, no in _SWITCHES:
        if name in template.variables or name in on:
            continue
        if not re.search(rf"(?<![\w.'\"]){name}(?!\w)", template.source):
            continue
        if isinstance(yes, str) and not all(re.search(rf"(['\"]){x}\1", template.source) for x in (yes, no)):
            continue
        thinking, plain = (
            replace(template, variables={**template.variables, name: value}) for value in (yes, no)
        )
        texts = [
            [variant.try_around(system, messages) for system in (None, template.word) for messages in (1, 3)]
            for variant in (thinking, plain)
        ]
        if texts[0] != texts[1] and texts[0][0] and texts[1][0]:
            on[name], off[name] = yes, no
    return on, off


def _generation(template: Template) -> str:
    return template.around(None, 1)[1]


def _written_marks(template: Template) -> dict[str, Any] | None:
    """The markers that the template writes around the reasoning of the last answer."""
    question, thought, answer = f"{template.word}0x", f"{template.word}1x", f"{template.word}2x"
    for field in _FIELDS:
        try:
            text = template.render(None, [question, answer], fields={1: {field: thought}})
            later = template.render(None, [question, answer, question], fields={1: {field: thought}})
        except FormatError:
            continue
        head, found, rest = text.partition(question)[2].partition(thought)
        closing, answered, _ = rest.partition(answer)
        if not (found and answered and closing.strip()):
            continue
        generation = _generation(template)
        opening = head[len(generation) :] if head.startswith(generation) else ""
        known = next((pair for pair in _PAIRS if pair[1] in closing), None)
        opening_mark, closing_mark = known or (opening.strip(), closing.strip())
        if opening_mark:
            return {
                "opening": opening or opening_mark,
                "opening_mark": opening_mark,
                "closing": closing,
                "closing_mark": closing_mark,
                "kept": thought in later,
            }
    return None


def _named_marks(template: Template) -> dict[str, Any]:
    """The markers that the template's source names; the pair that its generation prompt opens comes first."""
    named = [pair for pair in _PAIRS if pair[1] in template.source]
    generation = _generation(template)
    opened = [pair for pair in _PAIRS if generation.rfind(pair[0]) > generation.rfind(pair[1])]
    for opening, closing in [*opened, *named]:
        return {
            "opening": f"{opening}\n",
            "opening_mark": opening,
            "closing": f"\n{closing}\n\n",
            "closing_mark": closing,
        }
    return {}
