"""The loop of a sample: workers make rows of a build for a while, and the loop measures them.

Knows no Ray: workers are reached through the Actors protocol. Invariants: rows that have begun when the time
is over are finished, so that long rows count as often as short ones; whatever ends the loop, all actors end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from magpie_ray.coordinator.actors import Actors, Left, Lost
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.counters import Tally
from magpie_ray.errors import GenerationFailedError, InterruptedJobError
from magpie_ray.planning.estimate import Sample
from magpie_ray.types import Partition, PartitionRecord
from magpie_ray.utils.awake import awake_seconds
from magpie_ray.worker.events import Committed, Progress, Ready

_POLL_SECONDS = 0.5
# Time for idle actors to leave by themselves when all rows are made.
_LEAVE_SECONDS = 5.0


@dataclass(slots=True)
class _Slot:
    """An engine and its pieces. first, last: the time and the tokens so far in its reports of progress.

    started: rows of its pieces that have begun. tokens: generated before the time was over.
    """

    ready: bool = False
    pieces: list[Partition] = field(default_factory=list)
    first: tuple[float, int] | None = None
    last: tuple[float, int] | None = None
    started: int = 0
    tokens: int = 0


class Sampler:
    """Hands pieces of the build to workers and hears their events. clock, began: awake seconds.

    start_timeout_seconds, stall_timeout_seconds: how long nothing may happen before and after all are up.
    """

    def __init__(
        self,
        actors: Actors,
        pieces: Sequence[Partition],
        *,
        num_slots: int,
        grid: int,
        seconds: float,
        began: float,
        start_timeout_seconds: float = 1800.0,
        stall_timeout_seconds: float = 600.0,
        clock: Callable[[], float] = awake_seconds,
    ) -> None:
        self._actors, self._seconds, self._began, self._clock = actors, seconds, began, clock
        self._dispatcher = Dispatcher(pieces, num_slots=num_slots, grid=grid, max_failures_per_partition=1)
        self._slots = [_Slot() for _ in range(num_slots)]
        self._files: dict[int, PartitionRecord] = {}  # by first row
        self._first_ready: float | None = None
        self._all_ready: float | None = None
        self._stopped: float | None = None
        self._start_timeout, self._stall_timeout = start_timeout_seconds, stall_timeout_seconds
        self._advanced = clock()  # when an engine last came up, made a token or stored a piece
        self._work: dict[int, int] = {}  # tokens, decided messages and pieces, by slot
        self._awaited_rule = ""
        self.ended = began  # when the last rows were committed

    def work(self, stop_requested: Callable[[], bool]) -> None:
        """Work until all rows are made, or until the time is over and the rows begun by then are made."""
        try:
            for slot in range(len(self._slots)):
                self._actors.start(slot, engine_start=slot)
            while not self._done():
                if stop_requested():
                    raise InterruptedJobError("stopped before the sample was taken; nothing was written")
                for slot, event in self._actors.poll(_POLL_SECONDS):
                    self._take(slot, event)
                self._check_progress()
                over = self._all_ready is not None and self._clock() >= self._all_ready + self._seconds
                if over and self._stopped is None:
                    self._stop()
            for slot in range(len(self._slots)):
                self._actors.finish(slot)
            self._wait_until_left()
        finally:
            for slot in range(len(self._slots)):
                self._actors.end(slot)

    def _done(self) -> bool:
        if self._stopped is None:
            return self._dispatcher.done
        return all(piece.start in self._files for slot in self._slots for piece in slot.pieces)

    def _check_progress(self) -> None:
        """GenerationFailedError when an engine does not come up, or none of them goes on."""
        silent = self._clock() - self._advanced
        if self._all_ready is None and silent > self._start_timeout:
            raise GenerationFailedError(
                f"not all engines of the sample were up after {self._start_timeout:g} s "
                f"(cluster.start_timeout_seconds): {self._actors.describe()}"
            )
        if self._all_ready is not None and silent > self._stall_timeout:
            rule = f": they wait for the acceptance rule {self._awaited_rule}" if self._awaited_rule else ""
            raise GenerationFailedError(
                f"no token from the engines of the sample for {self._stall_timeout:g} s "
                f"(cluster.stall_timeout_seconds){rule}"
            )

    def _take(self, number: int, event: object) -> None:
        slot, now = self._slots[number], self._clock()
        if not isinstance(event, Progress) or event.work != self._work.get(number):
            self._advanced = now
        match event:
            case Ready():
                slot.ready = True
                self._first_ready = now if self._first_ready is None else self._first_ready
                if all(other.ready for other in self._slots):
                    self._all_ready = now
            case Progress():
                self._work[number], self._awaited_rule = event.work, event.awaited_rule
                slot.started = event.started
                if self._stopped is None:
                    self._measure(slot, event, now)
                    self._give_more(number, event, now)
            case Committed():
                self.ended = now
                self._files |= {record.start: record for record in event.files}
                files = [record.partition for record in event.files]
                for holder in self._dispatcher.committed(number, event.partition, files):
                    self._actors.drop(holder, event.partition)
            case Lost() | Left():
                if event.error:
                    raise event.error
                cause = event.cause if isinstance(event, Lost) else "it left"
                raise GenerationFailedError(f"an engine of the sample was lost: {cause}")

    def _measure(self, slot: _Slot, event: Progress, now: float) -> None:
        slot.tokens = event.engine.generated_tokens
        if self._all_ready is not None and event.doing == "generating":
            slot.last = (now, slot.tokens)
            slot.first = slot.first or slot.last

    def _give_more(self, number: int, event: Progress, now: float) -> None:
        for piece in self._dispatcher.progress(
            number,
            started=event.started,
            finished=event.tally.rows,
            live_window=event.live_window,
            now=now,
        ):
            self._slots[number].pieces.append(piece)
            self._actors.give(number, piece)

    def _stop(self) -> None:
        """Take back the pieces that have not begun."""
        self._stopped = self._clock()
        for number, slot in enumerate(self._slots):
            before, kept = 0, list[Partition]()
            for piece in slot.pieces:
                if before < slot.started or piece.start in self._files:
                    kept.append(piece)
                else:
                    self._actors.drop(number, piece)
                before += piece.num_rows
            slot.pieces = kept

    def _wait_until_left(self) -> None:
        deadline = self._clock() + _LEAVE_SECONDS
        staying = set(range(len(self._slots)))
        while staying and self._clock() < deadline:
            for slot, event in self._actors.poll(_POLL_SECONDS):
                if isinstance(event, (Lost, Left)):
                    self._actors.end(slot)
                    staying.discard(slot)

    def result(self, *, num_rows: int) -> Sample:
        """The measurement of a build with `num_rows` pending rows, without device, bytes and end_seconds.

        GenerationFailedError when no row was finished.
        """
        tally = Tally.sum(self._files.values())
        if not tally.rows or self._first_ready is None or self._all_ready is None:
            raise GenerationFailedError("the sample ended before any row was finished: give it more time")
        whole = tally.rows == num_rows
        rates = [
            (slot.last[1] - slot.first[1]) / (slot.last[0] - slot.first[0])
            for slot in self._slots
            if slot.first and slot.last and slot.last[0] > slot.first[0]
        ]
        seconds = self.ended - self._first_ready
        rate = sum(rates) / len(rates) if rates else tally.tokens / max(seconds, 1e-9) / len(self._slots)
        tail = 0.0
        if self._stopped is not None:
            after = tally.tokens - sum(slot.tokens for slot in self._slots)
            tail = max(0.0, self.ended - self._stopped - after / max(1e-9, rate * len(self._slots)))
        return Sample(
            engines=len(self._slots),
            rows=tally.rows,
            attempts=tally.attempts,
            rejected=tally.rejections,
            tokens=tally.tokens,
            seconds=seconds,
            start_seconds=(self._first_ready if whole else self._all_ready) - self._began,
            end_seconds=0.0,
            tokens_per_second=rate,
            tail_seconds=tail,
            bytes_per_row=0.0,
            bytes_per_file=0.0,
            whole=whole,
            device="",
        )
