"""The workers of a run as Ray actors (see coordinator.actors).

Invariants: Ray restarts no actor, because the dispatcher decides which slot gets another one; while the head
does not answer, no method blocks on it.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from magpie_ray.coordinator.actors import Left, Loss, Lost
from magpie_ray.coordinator.placement import Placement
from magpie_ray.driver.actor_logs import ActorLogs
from magpie_ray.driver.actor_losses import brief, explained, has_lost_a_node, lost_by, planned_place
from magpie_ray.driver.actor_process import ShardProcess
from magpie_ray.driver.cluster_watch import ClusterView, ClusterWatch
from magpie_ray.errors import MagpieError
from magpie_ray.types import Partition
from magpie_ray.utils.background import within
from magpie_ray.worker.events import Event, Placed
from magpie_ray.worker.spec import EngineFactory, EngineStart, WorkerSpec

log = logging.getLogger(__name__)

# The part of a core that the job's loop may take, as long as it turns twice a second. Asking Ray for the
# events of 1,000 actors takes a millisecond, whether there is one event or a hundred.
_LOOP_SHARE = 0.01
_NODE_LABEL = "ray.io/node-id"
# A head that answers at all does so within this time; the job's loop stands still meanwhile.
ASK_SECONDS = 30.0


@dataclass(slots=True)
class _Actor:
    handle: Any
    events: Any  # ray.ObjectRefGenerator
    group: PlacementGroup | None
    place: Placed | None = None


class RayActors:
    """One actor a slot.

    spec: what all workers have in common; it travels once to each node. start_of: what differs from worker to
    worker, by its engine start. capacity_in: how many actors there should be on a
    cluster. secrets: texts that are struck from everything actors say. process: the class that runs in an
    actor's process. ask_seconds: how long the next request to Ray may take.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        start_of: Callable[[int], EngineStart],
        placement: Placement,
        watch: ClusterWatch,
        *,
        capacity_in: Callable[[ClusterView], int],
        secrets: frozenset[str],
        engine_factory: EngineFactory | None,
        process: type[ShardProcess] = ShardProcess,
        ask_seconds: Callable[[], float] = lambda: ASK_SECONDS,
    ) -> None:
        self._spec, self._shared_spec = spec, cast(Any, None)
        self._start_of = start_of
        self._placement = placement
        self._watch = watch
        self._engine_factory = engine_factory
        self._secrets = secrets
        self._ask_seconds = ask_seconds
        self._logs = ActorLogs()
        self._capacity_in = capacity_in
        # slot -> engine start and nodes to avoid, while the head does not answer
        self._postponed: dict[int, tuple[int, frozenset[str]]] = {}
        self._ended: list[_Actor] = []  # to be killed
        self._actors: dict[int, _Actor] = {}
        self._actor_class: Any = ray.remote(concurrency_groups={"control": 1}, max_restarts=0)(process)
        self._listening: dict[Any, int] = {}  # events -> slot, of actors that have not ended
        self._turned = time.thread_time()

    def start(self, slot: int, *, engine_start: int, avoid: frozenset[str] = frozenset()) -> None:
        """Ask Ray for an actor, in a placement group of its own where the placement has bundles."""
        if self._watch.reachable():
            request = partial(self._request, self._start_of(engine_start), avoid)
            try:
                actor = within(self._ask_seconds(), request, if_late=_kill)
            except (TimeoutError, RayError) as exc:
                log.warning("Ray did not take the request for an actor; it is repeated: %s", brief(exc))
                self._watch.note_silence()
            else:
                self._actors[slot] = actor
                self._listening[actor.events] = slot
                return
        self._postponed[slot] = (engine_start, avoid)

    def _request(self, start: EngineStart, avoid: frozenset[str]) -> _Actor:
        """May block while the head does not answer."""
        placement, group = self._placement, None
        options: dict[str, Any] = {"num_cpus": placement.num_cpus, "num_gpus": placement.num_gpus}
        # Every node has a label with its id. A node that is gone by now does no harm in the list.
        elsewhere = {_NODE_LABEL: f"!in({','.join(sorted(avoid))})"} if avoid else None
        if placement.bundles:
            group = placement_group(
                [dict(b) for b in placement.bundles],
                strategy=placement.strategy,
                bundle_label_selector=[elsewhere] * len(placement.bundles) if elsewhere else None,
            )
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                placement_group=group,
                placement_group_bundle_index=0,
                placement_group_capture_child_tasks=True,
            )
        elif elsewhere:
            options["label_selector"] = elsewhere
        if self._shared_spec is None:
            # Thousands of system prompts would otherwise be pickled for every actor.
            self._shared_spec = ray.put(self._spec)
        handle = self._actor_class.options(**options).remote(self._shared_spec, start, self._engine_factory)
        return _Actor(handle, handle.run.options(num_returns="streaming").remote(), group)

    def give(self, slot: int, partition: Partition) -> None:
        self._tell(slot, "give", partition)

    def drop(self, slot: int, partition: Partition) -> None:
        self._tell(slot, "drop", partition)

    def last(self, slot: int) -> None:
        self._tell(slot, "last")

    def finish(self, slot: int) -> None:
        self._tell(slot, "finish")

    def stop(self, slot: int) -> None:
        self._tell(slot, "stop")

    def _tell(self, slot: int, method: str, *arguments: object) -> None:
        call = getattr(self._actors[slot].handle, method)
        call.options(concurrency_group="control").remote(*arguments)

    def end(self, slot: int) -> None:
        self._postponed.pop(slot, None)
        actor = self._actors.pop(slot, None)
        if actor is None:
            return
        self._listening.pop(actor.events, None)
        self._ended.append(actor)
        self._kill_ended()

    def _kill_ended(self) -> None:
        """Those of them that a silent head did not let be killed keep their places until it answers."""
        while self._ended and self._watch.reachable():
            try:
                within(self._ask_seconds(), partial(_kill, self._ended[0]))
            except TimeoutError:
                self._watch.note_silence()
                return
            except RayError as exc:
                log.warning("an actor could not be ended: %s", brief(exc))
            del self._ended[0]

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        """The next event of every actor that has one."""
        self._watch.check()
        self._kill_ended()
        if self._postponed and self._watch.reachable():
            for slot, (engine_start, avoid) in list(self._postponed.items()):
                del self._postponed[slot]
                self.start(slot, engine_start=engine_start, avoid=avoid)
        streams = list(self._listening)
        if not streams:
            time.sleep(timeout_seconds)
            return []
        # Let events gather: the more the last turn of the job's loop took, the longer.
        time.sleep(min(timeout_seconds, (time.thread_time() - self._turned) / _LOOP_SHARE))
        self._turned = time.thread_time()
        # The first wait takes every stream that has an event; the second one sleeps until any has one.
        ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0)
        if not ready:
            ready, _ = ray.wait(streams, num_returns=1, timeout=timeout_seconds)
        return [(self._listening[events], self._next_event(events)) for events in ready]

    def _next_event(self, events: Any) -> Event | Lost | Left:
        slot = self._listening[events]
        try:
            event: Event = ray.get(next(events), timeout=self._ask_seconds())
        except StopIteration:
            del self._listening[events]
            return Left()
        except RayTaskError as exc:
            error = exc.cause if isinstance(exc.cause, MagpieError) else None
            cause = str(error) if error else f"{type(exc.cause).__name__}: {exc.cause}"
            loss = Loss.NODE if has_lost_a_node(self._actors[slot].place, self._watch) else Loss.FAILED
            return Lost(cause=self.explain(slot, cause), loss=loss, error=error)
        except RayError as exc:  # a dead actor or node, no memory, a runtime environment that can't be made
            lost = lost_by(exc, self._actors[slot].place, self._watch)
            if self._actors[slot].place is None and self._watch.reachable():
                try:
                    node_id, host = within(
                        self._ask_seconds(), partial(planned_place, self._actors[slot].handle)
                    )
                except (TimeoutError, RayError):
                    self._watch.note_silence()
                else:
                    lost = replace(lost, node_id=node_id, host=host)
            if lost.loss in (Loss.FAILED, Loss.DIED):
                lost = replace(lost, cause=self.explain(slot, lost.cause))
            return lost
        if isinstance(event, Placed):
            self._actors[slot].place = event
        return event

    def explain(self, slot: int, cause: str) -> str:
        """The cause with the last lines of the actor's own log, fit to be shown."""
        place = self._actors[slot].place
        lines = self._logs.of(place) if place and self._watch.reachable() else []
        return explained(cause, place, lines, secrets=self._secrets)

    def capacity(self) -> int:
        return self._capacity_in(self._watch.view)

    def nodes(self) -> frozenset[str]:
        """Ids of the nodes that can hold an actor."""
        view = self._watch.view
        sizes = zip(view.staying, view.resources.node_cpus, view.resources.node_gpus, strict=True)
        return frozenset(node for node, cpus, gpus in sizes if self._placement.fits(cpus=cpus, gpus=gpus))

    def on_notice(self) -> list[int]:
        """Slots on nodes that are about to leave."""
        placed = [(slot, actor.place) for slot, actor in self._actors.items() if actor.place]
        return [slot for slot, place in placed if not self._watch.view.leaving.isdisjoint(place.nodes)]

    def describe(self) -> str:
        wanted = f"{len(self._actors) + len(self._postponed)} actors want {self._placement} each"
        return f"{wanted}; the cluster has {self._watch.view.free}"


def _kill(actor: _Actor) -> None:
    """May block while the head does not answer."""
    try:
        ray.kill(actor.handle)
    finally:
        if actor.group is not None:
            remove_placement_group(actor.group)
