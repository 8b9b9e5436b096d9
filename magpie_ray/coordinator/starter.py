"""Asks for the actors of a run: it carries out the decisions of the staffing."""

import logging
from collections.abc import Callable, Sequence

from magpie_ray.coordinator.actors import Actors
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import Fleet
from magpie_ray.coordinator.staffing import Staffing

log = logging.getLogger(__name__)

# How often the log says how many actors wait for a node.
_WAITING_SECONDS = 30.0


class Starter:
    """The requests for actors, each with the next number of an engine start. on_request: hears of each."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        actors: Actors,
        fleet: Fleet,
        staffing: Staffing,
        on_request: Callable[[int], None],
        clock: Callable[[], float],
    ) -> None:
        self._dispatcher, self._actors, self._fleet, self._staffing = dispatcher, actors, fleet, staffing
        self._on_request, self._clock = on_request, clock
        self._engine_starts = 0
        self._logged_waiting = clock()

    def add(self, slots: Sequence[int]) -> None:
        """New slots, whose actors start now or soon."""
        now = self._clock()
        self._dispatcher.note_nodes(self._actors.nodes())
        for slot in slots:
            self._fleet.expect(slot, now)
        if spread := self._staffing.add(slots, now):
            log.info(
                "%d actors start within %.0f s. The first one on each node fetches the model: "
                "docs/kuberay.md says how many nodes get a model quickly",
                len(slots),
                spread,
            )

    def start_due(self) -> None:
        """Start the actors whose time has come, as far as there is work for them."""
        now = self._clock()
        while (slot := self._staffing.next_due(now)) is not None:
            if self._dispatcher.num_pending <= self._fleet.num("waiting") + self._fleet.num("starting"):
                return
            self._start(slot, now)

    def look_around(self) -> None:
        """Use nodes that have come, and nodes that were left alone for long enough; log who still waits.

        Actors that have waited for too long are requested once more, and those that would start, or have
        just begun to, on a node that is left alone since they were requested.
        """
        now = self._clock()
        self._dispatcher.note_nodes(self._actors.nodes())
        wanted = min(self._actors.capacity(), self._dispatcher.num_left)
        if added := [self._dispatcher.add_slot() for _ in range(self._dispatcher.num_slots, wanted)]:
            for slot in added:
                log.info("the cluster has room for another actor: slot %d", slot)
            self.add(added)
        for slot in (*self._fleet.waiting, *self._fleet.starting):
            if self._staffing.is_to_ask_again(slot, now):
                self._actors.end(slot)
                self._staffing.withdraw(slot)
                self._start(slot, now)
        waiting = self._fleet.num("waiting")
        if waiting and now - self._logged_waiting >= _WAITING_SECONDS:
            self._logged_waiting = now
            log.info("%d of %d actors wait: %s", waiting, self._fleet.num_wanted, self._actors.describe())

    def _start(self, slot: int, now: float) -> None:
        self._fleet.request(slot, now)
        self._on_request(slot)
        avoid = self._staffing.start(slot, self._actors.nodes(), now)
        self._actors.start(slot, engine_start=self._engine_starts, avoid=avoid)
        self._engine_starts += 1
