"""The line in a notebook."""

import pytest

from magpie_ray.monitoring.notebook import ChangingLine
from tests.support.notebook import use_notebook


def test_the_line_is_shown_once_and_then_changed_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = use_notebook(monkeypatch)
    line = ChangingLine()
    for text in ("1 of 2", "2 of 2\x1b[2J"):
        line.show(text)
    assert shown == ["1 of 2", r"2 of 2\x1b[2J"]
