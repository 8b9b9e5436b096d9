"""What each kind of fault has cost."""

from collections import defaultdict
from dataclasses import dataclass


@dataclass(slots=True)
class Cost:
    """times: that the fault happened.

    losses: of actors. rows: finished, and generated again. seconds: of engines.
    """

    times: int = 0
    losses: int = 0
    rows: int = 0
    seconds: float = 0.0


class Costs:
    """By kind of fault."""

    def __init__(self) -> None:
        self.by_fault = defaultdict[str, Cost](Cost)

    def note(self, fault: str) -> None:
        """It has happened."""
        self.by_fault[fault].times += 1

    def lose(self, fault: str, rows: int, seconds: float) -> None:
        """An actor was lost to it, with that much work."""
        cost = self.by_fault[fault]
        cost.losses += 1
        cost.rows += rows
        cost.seconds += seconds
