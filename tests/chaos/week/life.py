"""One virtual actor, from its place on a node to its end, as the node's fault and the store let it live."""

import pickle
from collections.abc import Callable

from magpie_ray.coordinator.actors import Left, Loss, Lost
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.errors import EngineError, MagpieError, PreflightError, RowExhaustedError, StorageError
from magpie_ray.storage.retries import RETRY_SECONDS
from magpie_ray.types import Partition, PartitionRecord
from magpie_ray.worker.events import Committed, Event, Placed, Ready
from tests.chaos.week.cluster import ON_NOTICE, Node
from tests.chaos.week.scale import DIES, HANGS, NO_ACCESS, SLOW, STARTS_FAIL
from tests.chaos.week.worker import Engine, OpenPartition
from tests.chaos.week.world import World

HUB, OUTAGE, COPIES, BAD_LUCK = (
    "model hub: 429 at every start",
    "store: outage",
    "copies of a slow worker's partition",
    "row: bad luck taken for a cause",
)
# Between two reports of one of 500 workers while its rows run short.
_HUNGRY_SECONDS = 6.25
# How soon the driver hears of a process that died, and of a node.
_PROCESS_SECONDS, NODE_SECONDS = (1.0, 5.0), (5.0, 30.0)
_ARRIVES_AFTER_SECONDS = 5.0
_BREAKS_AFTER_SECONDS = (120.0, 600.0)
_UPLOAD_SECONDS = (1.0, 4.0)
# How long an upload that is refused is tried again.
_DENIED_SECONDS = 300.0
# How long a worker tries to see the output before its engine starts.
_LOOKS_SECONDS = 60.0
_EPSILON = 1e-6


class Life:
    """say: brings an event to the driver. node: None while it waits for one. over: its process is gone."""

    def __init__(
        self,
        world: World,
        slot: int,
        avoid: frozenset[str],
        say: Callable[["Life", Event | Lost | Left], None],
    ) -> None:
        self._world, self.slot, self.avoid, self._say = world, slot, avoid, say
        self.node: Node | None = None
        self.over = self._starting = self._leaving = False
        self.engine: Engine | None = None
        self._node_times = 0
        self._reported = 0.0
        self._report = 0  # the number of the report that is planned

    def place(self, node: Node) -> None:
        """It has a seat on the node."""
        self.node, self._node_times, self._starting = node, node.times, not node.fault
        node.actors.add(self)
        if self._starting:
            self._world.cluster.starting.change(1)
        self._after(_ARRIVES_AFTER_SECONDS, self._arrive)

    def _after(self, seconds: float | tuple[float, float], action: Callable[[], None]) -> None:
        """Do it after so long, or a time between the two, if the process is still there."""
        if isinstance(seconds, tuple):
            seconds = self._world.draw.uniform(*seconds)
        self._world.agenda.after(seconds, lambda: None if self.over else action())

    # The start.

    def _arrive(self) -> None:
        assert self.node is not None
        name, fault = self.node.name, self.node.fault
        self._say(self, Placed(node_id=name, host=name, pid=self.slot, log_path=""))
        if self._world.now < self._world.scale.hub_refuses_seconds:
            error: MagpieError = EngineError("could not load the model: 429 Too Many Requests")
            self._after(20.0, lambda: self._fail(HUB, error))
        elif fault == STARTS_FAIL:
            error = EngineError("CUDA error: no device")
            self._after(30.0, lambda: self._fail(STARTS_FAIL, error))
        elif fault == NO_ACCESS and self.node.number % 2:  # on the others only data/ is refused
            error = PreflightError("can't read build.json, which the driver has written: 403 Forbidden")
            self._after(10.0, lambda: self._fail(NO_ACCESS, error))
        elif self._world.objects.out_until - self._world.now > _LOOKS_SECONDS:
            error = PreflightError("can't read build.json, which the driver has written: ConnectionError")
            self._after(_LOOKS_SECONDS, lambda: self._fail(OUTAGE, error))
        else:
            self._after(self._world.scale.start_seconds, self._get_ready)

    def _get_ready(self) -> None:
        assert self.node is not None
        world, fault = self._world, self.node.fault
        self._end_start()
        world.note_ready()
        speed = 0.1 if fault == SLOW else 1.0
        self.engine = Engine(world.prompts, world.scale.live_window, world.now, speed=speed)
        self._say(self, Ready(figures=_figures(world.scale.live_window), seconds=100.0))
        self._send_report()
        if fault == DIES:
            lost = Lost(cause="died", loss=Loss.DIED)
            self._after(_BREAKS_AFTER_SECONDS, lambda: self.die(DIES, lost, _PROCESS_SECONDS))
        elif fault == HANGS:
            self.engine.hung = world.now + world.draw.uniform(*_BREAKS_AFTER_SECONDS)
        if self._leaving:
            self._leave()

    def _end_start(self) -> None:
        if self._starting:
            self._starting = False
            self._world.cluster.starting.change(-1)

    # The end.

    def end(self, fault: str | None = None) -> None:
        """Its process is gone, and what it has open is lost to the fault."""
        if self.over:
            return
        world, engine = self._world, self.engine
        self.over = True
        if self.node is None:
            return
        self.node.actors.discard(self)
        if engine is not None and fault:
            world.costs.lose(fault, *engine.lost(world.now))
        elif fault:
            world.costs.lose(fault, 0, 0.0)
        if engine is not None and not self.node.fault:
            world.gain.idle += engine.idle + max(0.0, engine.time(world.now) - engine.end)
        self._end_start()
        world.cluster.give_back(self.node, self._node_times)

    def die(self, fault: str, lost: Lost, heard_after: tuple[float, float]) -> None:
        """It ends without a word, which the driver hears of later."""
        if not self.over:
            self.end(fault)
            wait = self._world.draw.uniform(*heard_after)
            self._world.agenda.after(wait, lambda: self._say(self, lost))

    def _fail(self, fault: str, error: MagpieError) -> None:
        """Its run raises."""
        self.die(fault, Lost(cause=str(error), loss=Loss.FAILED, error=error), _PROCESS_SECONDS)

    def stop(self) -> None:
        """On notice: commit the finished heads, then end. An engine that starts is waited for."""
        self._leaving = True
        if self.engine is not None:
            self._after(_UPLOAD_SECONDS, self._leave)

    def _leave(self) -> None:
        world, engine = self._world, self.engine
        assert engine is not None
        if world.objects.is_out:
            return
        rows, seconds = engine.lost(world.now)
        for opened, head in list(engine.heads(world.now)):
            first = opened.partition.start
            self._commit(opened, Partition(start=first, stop=first + head))
            rows -= head
            spent = int(opened.work.attempts[:head].sum()) * world.prompts.seat_seconds
            seconds = max(0.0, seconds - spent)
        if self.node is not None and self.node.leaving:
            world.costs.lose(ON_NOTICE, rows, seconds)
        self._say(self, Left())
        self.end()

    # The work.

    def give(self, partition: Partition) -> None:
        if self.engine is not None and not self.over:
            self._expect(self.engine.give(partition, self._world.now))
            self._plan_report()

    def drop(self, partition: Partition) -> None:
        engine, now = self.engine, self._world.now
        if engine is None or self.over:
            return
        for opened in [o for o in engine.open if o.partition == partition and not o.uploading]:
            spent = opened.spent(engine.time(now))
            self._world.costs.lose(COPIES, engine.close(opened, now, dropped=True), spent)
            for later in engine.open:
                self._expect(later)
            self._plan_report()

    def _plan_report(self) -> None:
        """The next report: after the interval, or sooner while rows run short."""
        engine, scale = self.engine, self._world.scale
        assert engine is not None
        due = self._reported + scale.report_seconds
        if engine.open and engine.hung is None:
            last = engine.open[-1]
            short = scale.live_window / last.partition.num_rows * last.work.seconds
            hungry = engine.when(engine.end - short) + _EPSILON
            due = min(due, max(hungry, self._reported + _HUNGRY_SECONDS))
        self._report += 1
        number = self._report
        self._world.agenda.at(due, lambda: self._send_report() if self._report == number else None)

    def _send_report(self) -> None:
        if not self.over and self.engine is not None:
            self._reported = self._world.now
            self._say(self, self.engine.progress(self._world.now))
            self._plan_report()

    def _expect(self, opened: OpenPartition) -> None:
        """Look at the partition when its last row should be finished."""
        assert self.engine is not None
        when = self.engine.when(opened.begin + opened.work.length)
        if self.engine.hung is None or when < self.engine.hung:
            self._after(when - self._world.now + _EPSILON, lambda: self._finished(opened))

    def _finished(self, opened: OpenPartition) -> None:
        engine, world = self.engine, self._world
        assert engine is not None
        assert self.node is not None
        if opened.uploading or opened not in engine.open:
            return
        if engine.time(world.now) < opened.begin + opened.work.length:
            return  # it hangs, or the partition was expected sooner
        opened.uploading = True
        if why := engine.judge(opened.work):
            self._fail(BAD_LUCK, RowExhaustedError(why))
            return
        if all(other.uploading for other in engine.open):
            self._send_report()
        if self.node.fault == NO_ACCESS:
            error = StorageError("could not create a file: 403 Forbidden")
            self._after(_DENIED_SECONDS, lambda: self._fail(NO_ACCESS, error))
            return
        wait = world.objects.out_until - world.now + world.draw.uniform(0, 20) if world.objects.is_out else 0
        if wait > RETRY_SECONDS:
            error = StorageError(f"could not create a file (tried for {RETRY_SECONDS:.0f} s)")
            self._after(RETRY_SECONDS, lambda: self._fail(OUTAGE, error))
            return
        self._after(wait + world.draw.uniform(*_UPLOAD_SECONDS), lambda: self._store(opened))

    def _store(self, opened: OpenPartition) -> None:
        assert self.engine is not None
        self._commit(opened, opened.partition)
        self.engine.close(opened, self._world.now, dropped=False)

    def _commit(self, opened: OpenPartition, rows: Partition) -> None:
        """Create the file, or find another's and create what that lacks."""
        world, files = self._world, list[PartitionRecord]()
        start, first = rows.start, opened.partition.start
        while start < rows.stop:
            attempts = int(opened.work.attempts[start - first : rows.stop - first].sum())
            ours = Partition(start=start, stop=rows.stop)
            file, is_new = world.objects.create(ours, run=world.run, attempts=attempts)
            seconds = attempts * world.prompts.seat_seconds
            if not is_new:
                world.costs.lose(COPIES, min(file.stop, rows.stop) - start, seconds)
            elif self.node is not None and not self.node.fault:
                world.gain.useful += seconds
            files.append(file)
            start = file.stop
        event = Committed(
            partition=opened.partition,
            files=tuple(files),
            seconds=world.now - opened.given,
            upload_seconds=2.0,
        )
        # As Ray brings it: no object of it is shared with another event.
        self._say(self, pickle.loads(pickle.dumps(event)))


def _figures(live_window: int) -> EngineFigures:
    return EngineFigures(max_num_seqs=live_window, kv_cache_tokens=860_000, max_model_len=32_768)
