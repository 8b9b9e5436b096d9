"""Conversations in the terminal, coloured by role: rows and rejected messages.

Invariant: generated text is data. It is never markup, and can't control a terminal.
"""

from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from magpie_ray.dataset.reader import Record, said_in
from magpie_ray.dataset.rejects import Reject
from magpie_ray.utils.text import safe

_ROLE_STYLES = {"system": "magenta", "user": "bold cyan", "assistant": "green"}
_REJECTED = "red"
_SHOWN_ITEMS = 6


def row_panel(row: Record) -> Panel:
    """One row. The reasoning behind an answer stands before it, dimmed; a message that was cut says so.

    Of a row without messages, such as one of scores, the panel has the columns.
    """
    parts = [
        _message(
            said.role,
            "(no answer was accepted)" if said.text is None else said.text,
            thought=said.reasoning,
            note=", cut" if said.finish_reason == "length" else "",
        )
        for said in said_in(row)
    ]
    if not parts:
        parts = [Text(safe(f"{name}: {_shown(value)}")) for name, value in row.items() if name != "row_id"]
    return _panel(f"row {row['row_id']}", row, parts)


def reject_panel(reject: Reject) -> Panel:
    """A rejected message in red, after the messages before it. The title has the reason."""
    before = [_message(str(said["role"]), str(said["content"])) for said in _list(reject["messages"])]
    title = f"{reject['reason']}: row {reject['row_id']}, attempt {reject['attempt']}, turn {reject['turn']}"
    rejected = _message(f"{reject['role']}, rejected", str(reject["text"]), style=_REJECTED)
    return _panel(title, reject, [*before, rejected])


def _panel(title: str, fields: Record, parts: list[Text]) -> Panel:
    key, number = fields.get("system_prompt_key"), fields.get("input_id")
    full_title = safe(
        title + (f", {key}" if key else "") + (f", input {number}" if number is not None else "")
    )
    return Panel(Group(*parts), title=Text(full_title), title_align="left")


def _message(role: str, text: str, *, thought: object = None, style: str = "", note: str = "") -> Text:
    head = (f"{safe(role)}{note}\n", f"bold {style}" if style else _ROLE_STYLES.get(role, "bold"))
    reasoning = (f"{safe(str(thought))}\n\n", "dim") if thought else ""
    return Text.assemble(head, reasoning, (safe(text), style), "\n")


def _shown(value: object) -> str:
    """A value of a column; of a long list, such as an embedding, the beginning."""
    if isinstance(value, list) and len(value) > _SHOWN_ITEMS:
        first = ", ".join(map(str, value[:_SHOWN_ITEMS]))
        return f"[{first}, ... {len(value)} in all]"
    return str(value)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
