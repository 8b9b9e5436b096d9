"""A line below a notebook's cell that changes in place.

Needs no widgets. Invariant: what a notebook shows is text, whatever characters it has.
"""

import importlib
from typing import Any

from magpie_ray.utils.text import safe


class ChangingLine:
    """One line of the cell that runs now."""

    def __init__(self) -> None:
        self._shown: Any = None

    def show(self, text: str) -> None:
        """Show the text in place of what the line was."""
        data = {"text/plain": safe(text)}
        if self._shown is None:
            display = importlib.import_module("IPython.display").display
            self._shown = display(data, raw=True, display_id=True)
        else:
            self._shown.update(data, raw=True)
