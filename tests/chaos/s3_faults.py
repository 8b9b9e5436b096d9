"""Faults of the store: one request is spoiled, or all requests are refused for a while."""

import functools
import math
import time
from dataclasses import dataclass

from tests.chaos.ground import SpoiledRequest, WatchedProxy
from tests.chaos.scene import RECOVERY_SECONDS, Injection, Scene

_OUTAGE = "503 ServiceUnavailable"
# Credentials that are rotated, keys that are replaced, policies and buckets that propagate.
_DENIALS = ("403 AccessDenied", "400 ExpiredToken", "403 InvalidAccessKeyId", "404 NoSuchBucket")
_DENIED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Spoil:
    """The next request of a kind is spoiled: see FaultProxy. It counts when that request has come."""

    method: str
    fault: str
    part: str = ""

    @property
    def name(self) -> str:
        return f"S3: {self.fault}"

    def inject(self, scene: Scene) -> None:
        self.lie_in_wait(scene.proxy)

    def lie_in_wait(self, proxy: WatchedProxy) -> None:
        proxy.spoil(self.method, self.fault, part=self.part)


@dataclass(frozen=True, slots=True)
class Outage:
    """Every request is refused for so long, and until so many have been, those tried again among them."""

    name: str = "S3: outage of everything"
    fault: str = _OUTAGE
    requests: int = 12
    seconds: float = 0.0

    def inject(self, scene: Scene) -> None:
        proxy, driver = scene.proxy, scene.driver
        before, until = len(proxy.spoiled), time.monotonic() + self.seconds
        proxy.storm(1.0, [self.fault], seed=0)
        driver.wait_for(
            "noticing the outage",
            lambda: len(proxy.spoiled) >= before + self.requests and time.monotonic() >= until,
        )
        proxy.calm()
        calm, uploads = time.monotonic(), proxy.uploads.total()
        driver.wait_for("an upload after the outage", lambda: proxy.uploads.total() > uploads)
        over = time.monotonic()
        scene.injections.append(Injection(self.name, calm, RECOVERY_SECONDS, lambda: over))


def spoiled_requests(spoiled: list[SpoiledRequest], deaths: list[float]) -> list[Injection]:
    """Requests that suffered, but for those of outages, as injections.

    deaths: when drivers and actors ended. What nobody lived to ask for again is their recovery, not this.
    """

    def served(one: SpoiledRequest) -> float | None:
        until = math.inf if one.served_at is None else one.served_at
        return None if any(one.at <= death <= until for death in deaths) else one.served_at

    return [
        Injection(
            f"S3: {one.fault}",
            one.at,
            RECOVERY_SECONDS,
            functools.partial(served, one),
        )
        for one in spoiled
        if one.fault not in (_OUTAGE, *_DENIALS)
    ]


# Ten seconds of each answer to everything, as if access were gone.
DENIALS = tuple(
    Outage(f"S3: {fault}, ten seconds of it", fault, requests=3, seconds=_DENIED_SECONDS)
    for fault in _DENIALS
)


# Each with its share.
S3_FAULTS: dict[Spoil, int] = {
    Spoil("PUT", "503 SlowDown", "/data/"): 20,
    Spoil("PUT", "500 InternalError", "/data/"): 14,
    Spoil("PUT", "reset", "/data/"): 14,
    Spoil("PUT", "lost_reply", "/data/"): 16,
    Spoil("PUT", "409 ConditionalRequestConflict", "/data/"): 12,
    Spoil("PUT", "stall", "/data/"): 4,
    Spoil("GET", "cut_body"): 8,
    Spoil("GET", "503 SlowDown"): 6,
    Spoil("GET", "reset"): 6,
    Spoil("HEAD", "500 InternalError"): 4,
}
