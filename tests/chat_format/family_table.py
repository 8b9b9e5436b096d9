"""The table of chat formats in the docs, made by the real derivation.

`python -m tests.chat_format.family_table` prints it. Rows of published templates need
MAGPIE_RAY_CHAT_TEMPLATES; those of tests/chat_format/families.py are always there.
"""

from collections.abc import Iterator
from typing import Any

from magpie_ray.chat_format import ChatFormat
from magpie_ray.cli.views.results import visible
from tests.chat_format.families import FAMILIES
from tests.chat_format.test_derivation import FAMILIES as PUBLISHED
from tests.chat_format.test_derivation import published_family
from tests.chat_format.test_families import derived, tokenizer_of

_LONGEST = 44


def rows() -> Iterator[str]:
    for path in PUBLISHED:
        family, tokenizer, form = published_family(path)
        yield _row(f"{family['family']} ({family['model_example']})", tokenizer, form, None, None)
    for family in FAMILIES:
        forms = [derived(family, thinking) if family.thinking else None for thinking in (True, False)]
        yield _row(family.name, tokenizer_of(family), derived(family), *forms)


def _row(name: str, tokenizer: Any, form: ChatFormat, on: ChatFormat | None, off: ChatFormat | None) -> str:
    cells = [
        name,
        _code(form.pre_query),
        _system(form),
        _ends(form.user_to_assistant, form.user_stop_token_ids, form, tokenizer),
        _ends(form.next_user, form.assistant_stop_token_ids, form, tokenizer),
        _thinking(on, off) if on and off else "",
        _notes(form),
    ]
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    shown = visible(text)
    shown = shown if len(shown) <= _LONGEST else "…" + shown[-_LONGEST:]
    return "`" + shown.replace("|", "\\|") + "`"


def _system(form: ChatFormat) -> str:
    if not form.takes_system:
        return "refused"
    if any(prefix.last_user for prefix in form.system_prefixes):
        return "in the last user message"
    return "yes" if form.system_role == "supported" else "in the first user message"


def _ends(after: str, ids: tuple[int, ...], form: ChatFormat, tokenizer: Any) -> str:
    stop = next((stop for stop in form.stop_strings if after.startswith(stop)), None)
    return f"text {_code(stop)}" if stop else _code(tokenizer.convert_ids_to_tokens(ids[0]))


def _thinking(on: ChatFormat, off: ChatFormat) -> str:
    assert on.reasoning is not None
    switched = not any("no switch" in warning for warning in off.warnings)
    opened = "opened by the prompt" if on.reasoning.opened else "opened by the model"
    return f"{opened}; off: {'switch' if switched else _code(off.user_to_assistant)}"


def _notes(form: ChatFormat) -> str:
    notes = [
        (form.date, "dated"),
        (form.trimmed_roles, "trims"),
        (form.user_to_assistant != form.history_user_to_assistant, "history differs from the prompt"),
        (form.multi_turn_problem, "one turn only"),
        (any("joins markers" in warning for warning in form.warnings), "words join markers"),
    ]
    return ", ".join(text for is_so, text in notes if is_so)


if __name__ == "__main__":
    print("\n".join(rows()))
