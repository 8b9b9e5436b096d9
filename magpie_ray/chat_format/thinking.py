"""How a template makes a model think before it answers, and how it is kept from it.

Owns: the names of the variables that templates are switched by, and the marks that reasoning stands between.
What always holds: whatever is taken for a switch changes what the template writes; nothing is keyed on a
model's name; "off" leaves no reasoning open.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from magpie_ray.chat_format.encoder import Encoder
from magpie_ray.chat_format.format import ChatFormat, Reasoning
from magpie_ray.chat_format.template import Template
from magpie_ray.errors import FormatError

# Variables, with the values that turn thinking on and off. A value that is text counts where the template
# itself compares with it: others take any text for an instruction.
_SWITCHES: tuple[tuple[str, Any, Any], ...] = (
    ("enable_thinking", True, False),
    ("thinking", True, False),
    ("reasoning", True, False),
    ("enable_reasoning", True, False),
    ("think", True, False),
    ("reasoning_effort", "high", "none"),
    ("thinking_mode", "thinking", "chat"),
    ("thinking_mode", "enabled", "disabled"),
    ("thinking_mode", "on", "off"),
)
# Fields of an assistant message in which templates look for its reasoning.
_FIELDS = ("reasoning_content", "thinking", "reasoning")
# What reasoning stands between. Templates that do not write it (they drop it from earlier answers, or leave
# it to the model) name these in their text.
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
_MARKS = tuple(mark for pair in _PAIRS for mark in pair if not mark[0].isalpha())


@dataclass(frozen=True, kw_only=True, slots=True)
class Thinking:
    """What a template knows of thinking. `on`, `off`: variables; empty where it has no switch.

    `opening` and `closing` are what it writes before and behind reasoning, with its white space; the marks
    are without. All are "" where it knows of none. kept: it writes the reasoning of earlier answers, too.
    """

    on: Mapping[str, Any]
    off: Mapping[str, Any]
    opening: str = ""
    opening_mark: str = ""
    closing: str = ""
    closing_mark: str = ""
    kept: bool = False

    @property
    def possible(self) -> bool:
        return bool(self.closing_mark)

    def opens(self, generation: str) -> bool:
        """Whether this text, which asks for an answer, leaves reasoning open."""
        return self.possible and generation.rfind(self.opening_mark) > generation.rfind(self.closing_mark)

    def closes(self, generation: str) -> bool:
        """Whether this text, which asks for an answer, says that there is no reasoning, or no more."""
        return self.possible and self.closing_mark in generation and not self.opens(generation)


def read_thinking(template: Template) -> Thinking:
    """What the template knows of thinking. Variables that the user has set are no switches any more."""
    on, off = _switches(template)
    thinking = replace(template, variables={**template.variables, **on})
    found = _written_marks(thinking) or _named_marks(thinking)
    if found is None or Thinking(on=on, off=off, **found).closes(_generation(thinking)):
        return Thinking(on=on, off=off)  # an empty block in front of every answer, or no block at all
    return Thinking(on=on, off=off, **found)


def with_thinking(
    form: ChatFormat, thinking: bool | None, knows: Thinking, template: Template, encoder: Encoder
) -> ChatFormat:
    """The format with what asks for an answer turned to thinking or away from it; None leaves it."""
    marks = [mark for mark in _MARKS if mark in encoder.markers.values() or mark in template.source]
    form = replace(form, role_markers=tuple(dict.fromkeys([*form.role_markers, *marks])))
    if thinking is None:
        return form
    generation, history = form.user_to_assistant, form.history_user_to_assistant
    if not thinking:
        closed, warning = _without_thinking(knows, generation=generation, history=history)
        if not knows.possible and history.startswith(generation):
            # A token that the model would write in front of its answer is no part of the message.
            beyond = history[len(generation) :]
            closed = history if any(mark in beyond for mark in encoder.markers.values()) else generation
        return replace(
            form,
            user_to_assistant=closed,
            user_to_assistant_ids=encoder.piece(form.pre_query, closed),
            warnings=(*form.warnings, *([warning] if warning else [])),
        )
    reasoning = _reasoning_of(knows, generation=generation, history=history, source=template.source)
    # A token that ends answers and stands inside this markup must not end them there.
    inside = {i for text in (reasoning.opening, reasoning.closing) for i in encoder.alone(text)}
    stops = [i for i in form.assistant_stop_token_ids if i not in inside]
    withheld = next((i for i in form.assistant_stop_token_ids if i in inside), None)
    if withheld is not None:
        reasoning = replace(reasoning, answer_closing=encoder.markers.get(withheld, ""))
    if reasoning.kept:
        history, ids = generation, form.user_to_assistant_ids
        form = replace(form, history_user_to_assistant=history, history_user_to_assistant_ids=ids)
    return replace(form, assistant_stop_token_ids=tuple(stops), reasoning=reasoning)


def _reasoning_of(thinking: Thinking, *, generation: str, history: str, source: str) -> Reasoning:
    """How answers are split. `generation`: what asks for one; `history`: what stands there afterwards."""
    opened = thinking.opens(generation)
    wrapper = next((pair for pair in _ANSWER_PAIRS if all(mark in source for mark in pair)), ("", ""))
    # Where the history says more than the generation prompt, an answer without reasoning begins with that.
    longer = history.startswith(generation) and not opened
    return Reasoning(
        opened=opened,
        opening=thinking.opening_mark,
        closing=thinking.closing_mark,
        answer_opening=(history[len(generation) :].strip() if longer else "") or wrapper[0],
        answer_closing=wrapper[1],
        kept=thinking.kept,
    )


def _without_thinking(thinking: Thinking, *, generation: str, history: str) -> tuple[str, str | None]:
    """What asks for an answer that is not thought about, and what is to be said of it, or None.

    `generation` and `history` are what the template writes with its switch turned off.
    """
    if not thinking.possible or thinking.closes(generation):
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
        if name in template.variables or name in on or not _mentions(template.source, name):
            continue
        if isinstance(yes, str) and not all(_quotes(template.source, value) for value in (yes, no)):
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


def _mentions(source: str, name: str) -> bool:
    return re.search(rf"(?<![\w.'\"]){name}(?!\w)", source) is not None


def _quotes(source: str, value: str) -> bool:
    return f"'{value}'" in source or f'"{value}"' in source


def _generation(template: Template) -> str:
    return template.around(None, 1)[1]


def _written_marks(template: Template) -> dict[str, Any] | None:
    """The marks that the template itself writes around the reasoning of the last answer."""
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


def _named_marks(template: Template) -> dict[str, Any] | None:
    """The marks that the template's text names: those that its generation prompt opens first."""
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
    return None
