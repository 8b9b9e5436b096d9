"""How an actor was lost, as Ray tells it, and what the user is told of it.

Invariant: a cause is one short text without a traceback, a secret or colours; where it tells of a limit of
the machine, it names the remedy.
"""

import re
from collections.abc import Sequence, Set
from typing import Any

from ray._private.state import state
from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RuntimeEnvSetupError,
)

from magpie_ray.coordinator.actors import Loss, Lost
from magpie_ray.driver.cluster_watch import ClusterWatch
from magpie_ray.utils.limits import limit_remedy
from magpie_ray.utils.redaction import scrub
from magpie_ray.worker.events import Placed

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BRIEF_CHARACTERS = 600
# Another actor would probably fail in the same way.
_OWN_FAULTS = (OutOfMemoryError, RuntimeEnvSetupError)


def explained(cause: str, place: Placed | None, lines: Sequence[str], *, secrets: Set[str]) -> str:
    """The cause, a remedy where one is known, and the last lines of the log of the actor at `place`."""
    cause = scrub(cause, secrets)
    remedy = limit_remedy("\n".join([cause, *lines]))
    if remedy and remedy not in cause:
        cause = f"{cause.rstrip('. ')}. {remedy}"
    if not (place and lines):
        return cause
    head = f"{cause}\n  The last lines of its log (process {place.pid} on {place.host}):"
    return "\n    ".join([head, *(scrub(line, secrets) for line in lines)])


def planned_place(handle: Any) -> tuple[str, str]:
    """The node that an actor was to start on, and its address; empty where it had none.

    No public call tells it of an actor whose process failed before it could say anything.
    """
    address = state.actor_table(handle._actor_id.hex()).get("Address", {})
    return address.get("NodeID", ""), address.get("IPAddress", "")


def lost_by(exc: RayError, place: Placed | None, watch: ClusterWatch) -> Lost:
    """What Ray's error says about the loss of the actor at `place`, which is None before it has started."""
    cause = brief(exc)
    # Unavailable: the raylet is gone, and Ray learns only seconds later that its node is dead.
    if isinstance(exc, (NodeDiedError, ActorUnavailableError)):
        return Lost(cause=cause, loss=Loss.NODE)
    if not watch.reachable():
        return Lost(cause=f"the head of the cluster stopped answering: {cause}", loss=Loss.LEFT)
    if has_lost_a_node(place, watch):
        return Lost(cause=cause, loss=Loss.NODE)
    is_own_fault = isinstance(exc, _OWN_FAULTS) or _failed_to_start(exc)
    return Lost(cause=cause, loss=Loss.FAILED if is_own_fault else Loss.DIED)


def has_lost_a_node(place: Placed | None, watch: ClusterWatch) -> bool:
    """Whether one of the nodes that the actor's engine is on is gone."""
    return place is not None and not watch.view.alive.issuperset(place.nodes)


def _failed_to_start(exc: Exception) -> bool:
    """Whether the actor's `__init__`, or an import of its class, raised."""
    return isinstance(exc, RayActorError) and exc.actor_init_failed


def brief(exc: Exception) -> str:
    """Its message without its table of ids and its colours; of a traceback only the last line."""
    lines = [line for line in _COLOUR.sub("", str(exc)).splitlines() if line.strip() and line[0] != "\t"]
    shown = lines[-1:] if _failed_to_start(exc) else lines
    return f"{type(exc).__name__}: {' '.join(' '.join(shown).split())[:_BRIEF_CHARACTERS]}"
