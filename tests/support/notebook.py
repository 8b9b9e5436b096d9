"""A notebook, as far as a display sees one: IPython's `display` and the handle that it returns."""

import sys
from types import ModuleType

import pytest


def use_notebook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put IPython.display in place. Returns what is shown from now on, one text a change."""
    shown: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            assert raw
            shown.append(data["text/plain"])

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert display_id
        handle = Handle()
        handle.update(data, raw=raw)
        return handle

    module = ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown
