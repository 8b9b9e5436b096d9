"""Virtual time, and what is to happen when."""

import heapq
from collections.abc import Callable
from itertools import count


class Agenda:
    """Actions in order of their times. now: virtual seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._actions: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def clock(self) -> float:
        return self.now

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do it then, or at once if that is past."""
        heapq.heappush(self._actions, (max(when, self.now), next(self._numbers), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.at(self.now + seconds, action)

    def forget(self) -> None:
        """Nothing of it will happen."""
        self._actions.clear()

    def pass_until(self, when: float) -> None:
        """Let time pass, and do what is due."""
        while self._actions and self._actions[0][0] <= when:
            self.now, _, action = heapq.heappop(self._actions)
            action()
        self.now = max(self.now, when)


class Meter:
    """The integral over time of a level."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda, self._since = agenda, agenda.now
        self.level = 0
        self._seconds = 0.0

    def change(self, by: int) -> None:
        self._seconds = self.seconds
        self._since = self._agenda.now
        self.level += by

    @property
    def seconds(self) -> float:
        return self._seconds + self.level * (self._agenda.now - self._since)
