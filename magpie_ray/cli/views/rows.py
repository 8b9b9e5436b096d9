"""Conversations in the terminal: rows, and what was thrown away, coloured by role.

Generated text is data: it is never markup, and does nothing to a terminal (safe_text).
"""

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from magpie_ray.dataset.reader import Record, messages_of
from magpie_ray.dataset.rejects import Reject
from magpie_ray.utils.text import safe

_ROLE_STYLES = {"system": "magenta", "user": "bold cyan", "assistant": "green"}
_REJECTED = "red"


class PipedConsole(Console):
    """A console whose reader may leave, as `head` does: that is for the caller to hear of."""

    def on_broken_pipe(self) -> None:
        """BrokenPipeError, in the place of an exit."""
        raise BrokenPipeError


def row_panel(row: Record) -> Panel:
    """One row; what an answer was reasoned from stands dimmed before it."""
    thoughts = iter(_list(row.get("reasoning")))
    parts = []
    for role, text in messages_of(row):
        thought = next(thoughts, None) if role == "assistant" else None
        parts.append(_message(role, text, thought=thought))
    return _panel(f"row {row['row_id']}", row, parts)


def reject_panel(reject: Reject) -> Panel:
    """What was rejected, in red, behind what it followed; the title says why."""
    told = [_message(str(said["role"]), str(said["content"])) for said in _list(reject["messages"])]
    title = f"{reject['reason']}: row {reject['row_id']}, attempt {reject['attempt']}, turn {reject['turn']}"
    rejected = _message(f"{reject['role']}, rejected", str(reject["text"]), style=_REJECTED)
    return _panel(title, reject, [*told, rejected])


def _panel(title: str, fields: Record, parts: list[Text]) -> Panel:
    key = fields.get("system_prompt_key")
    named = safe(title + (f", {key}" if key else ""))
    body: RenderableType = Group(*parts)
    return Panel(body, title=Text(named), title_align="left")


def _message(role: str, text: str, *, thought: object = None, style: str = "") -> Text:
    head = (f"{safe(role)}\n", f"bold {style}" if style else _ROLE_STYLES.get(role, "bold"))
    before = (f"{safe(str(thought))}\n\n", "dim") if thought else ""
    return Text.assemble(head, before, (safe(text), style), "\n")


def _list(value: object) -> list[dict[str, object]]:
    return value if isinstance(value, list) else []
