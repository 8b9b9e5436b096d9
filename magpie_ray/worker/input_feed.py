"""What rows with inputs start with, loaded ahead in the background.

Invariants: a row is handed over once it is loaded, in the order of rows that were opened. What is loaded
ahead is bounded in rows and bytes. Whatever fails in the background is raised where rows are taken.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Condition, Thread
from typing import Generic, Protocol, TypeVar

log = logging.getLogger(__name__)

# Rows that are loaded together.
_CHUNK_ROWS = 64
# Characters of the prompts that are loaded ahead, and wait to be handed over.
_AHEAD_CHARACTERS = 8 << 20


T = TypeVar("T")


class Loader(Protocol[T]):
    """Loads what rows start with: their prompt, their messages, or a row of the source itself."""

    def load(self, rows: Sequence[int]) -> list[T]: ...

    def characters(self, loaded: T, /) -> int:
        """About how much memory it takes."""

    def close(self) -> None: ...


class InputFeed(Generic[T]):
    """Loads the inputs of opened rows ahead of their start. One thread calls all methods.

    number: of the inputs of the build. on_loaded: called from the background when rows can be taken, or
    loading has failed.
    """

    def __init__(
        self,
        loader: Loader[T],
        *,
        number: int,
        on_loaded: Callable[[], None],
    ) -> None:
        self.number = number
        self._loader, self._on_loaded = loader, on_loaded
        self._ahead = 0
        self._starts: dict[int, T] = {}  # taken and not released, by row id
        # Shared with the background.
        self._changed = Condition()
        self._opened = deque[deque[int]]()  # rows to load, by partition
        self._ready = deque[tuple[int, T]]()
        self._loading: set[int] = set()
        self._characters = 0
        self._failure: BaseException | None = None
        self._closed = False
        Thread(target=self._work, name="input feed", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Opened rows that were not taken yet."""
        with self._changed:
            return sum(map(len, self._opened)) + len(self._loading) + len(self._ready)

    @property
    def has_some(self) -> bool:
        """Whether `take` has rows to return, or a failure to raise."""
        with self._changed:
            return bool(self._ready) or self._failure is not None

    def open(self, rows: Iterable[int], *, ahead: int) -> None:
        """Rows of a partition will be taken. ahead: how many may be loaded before they are."""
        with self._changed:
            self._ahead = max(ahead, _CHUNK_ROWS)
            self._opened.append(deque(rows))
            self._changed.notify_all()

    def take(self, most: int) -> list[int]:
        """Up to so many rows that are loaded. Raises what loading has failed with."""
        taken = list[int]()
        with self._changed:
            while self._ready and len(taken) < most:
                row_id, start = self._ready.popleft()
                self._characters -= self._loader.characters(start)
                self._starts[row_id] = start
                taken.append(row_id)
            if self._failure and not taken:
                raise self._failure
            self._changed.notify_all()
        return taken

    def start_of(self, row_id: int) -> T:
        """What the row starts with. It was taken, and not released."""
        return self._starts[row_id]

    def release(self, rows: Iterable[int]) -> None:
        """The rows are finished: their starts are forgotten."""
        for row_id in rows:
            self._starts.pop(row_id, None)

    def drop(self, rows: range) -> None:
        """None of these rows is taken any more."""
        with self._changed:
            kept = (deque(row for row in opened if row not in rows) for opened in self._opened)
            self._opened = deque(opened for opened in kept if opened)
            self._loading = {row for row in self._loading if row not in rows}
            self._ready = deque((row, start) for row, start in self._ready if row not in rows)
            self._characters = sum(self._loader.characters(start) for _, start in self._ready)
            self._changed.notify_all()
        self.release(rows)

    def close(self) -> None:
        """End the background."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._loader.close()

    def _work(self) -> None:
        while chunk := self._next():
            try:
                starts = self._load(chunk)
            except BaseException as exc:  # noqa: BLE001 - it is raised where rows are taken
                with self._changed:
                    self._failure, self._loading = exc, set()
                self._on_loaded()
                return
            with self._changed:
                # Those that were dropped meanwhile are not among them any more.
                starts = [(row, start) for row, start in starts if row in self._loading]
                self._loading = set()
                self._ready += starts
                self._characters += sum(self._loader.characters(start) for _, start in starts)
            self._on_loaded()

    def _next(self) -> list[int]:
        """The next rows to load, once there is room for them; none when the feed is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self._opened and self._has_room()))
            if self._closed:
                return []
            rows = self._opened[0]
            chunk = [rows.popleft() for _ in range(min(_CHUNK_ROWS, len(rows)))]
            if not rows:
                self._opened.popleft()
            self._loading = set(chunk)
            return chunk

    def _has_room(self) -> bool:
        return len(self._ready) < self._ahead and self._characters < _AHEAD_CHARACTERS

    def _load(self, rows: Sequence[int]) -> list[tuple[int, T]]:
        return list(zip(rows, self._loader.load(rows), strict=True))
