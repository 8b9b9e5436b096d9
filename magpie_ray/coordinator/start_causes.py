"""Why engines did not come up: the causes of failed starts, grouped, and which may pass by themselves."""

import re
from dataclasses import dataclass, field

from magpie_ray.utils.limits import is_process_limit

_SHOWN_CAUSES, _SHOWN_HOSTS = 3, 5
# A cause that may pass, on so many hosts since an engine was last up, lies with none of them.
_SHARED_BY = 3
_MOST_CAUSES = 100
# A hub, a store, a network or a mount that recovers. Texts, because most come out of an engine's own log.
_MAY_PASS = re.compile(
    r"\b(429|500|502|503|504) (Client|Server) Error|Too Many Requests|Service Unavailable|Bad Gateway"
    r"|Gateway Time-?out|[Rr]ate.?limit|\btimed out\b|\w*Timeout(Error)?\b|ConnectionError|RemoteDisconnected"
    r"|Connection (refused|reset|aborted)|IncompleteRead|Temporary failure|[Tt]emporarily unavailable"
    r"|NameResolutionError|SlowDown|Stale file handle|Input/output error"
)
# Whatever stands beside it in a log: these do not pass, nor do limits of the node on processes.
_LASTS = re.compile(r"OutOfMemory|out of memory|No space left|Permission denied")
_VARIES = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+")


def may_pass(cause: str) -> bool:
    """Whether the cause of a failed start may be over a while later, without anybody doing anything."""
    return bool(_MAY_PASS.search(cause)) and not _LASTS.search(cause) and not is_process_limit(cause)


@dataclass(slots=True)
class _Cause:
    times: int = 0
    hosts: dict[str, None] = field(default_factory=dict)
    text: str = ""


class StartCauses:
    """The causes of failed starts since an engine was up, as text: grouped by cause, with the hosts."""

    def __init__(self) -> None:
        self._causes: dict[str, _Cause] = {}

    def __bool__(self) -> bool:
        return bool(self._causes)

    @property
    def is_shared(self) -> bool:
        """Whether starts fail for what lies with no host: a hub, a store or a network."""
        return any(map(_is_shared, self._causes.values()))

    def clear(self) -> None:
        self._causes.clear()

    def note(self, cause: str, host: str) -> bool:
        """A start has failed on that host, "" where it had none yet. Whether the cause lies with no host."""
        kind = _VARIES.sub("#", cause.partition("\n")[0].replace(host or "\n", ""))
        if kind not in self._causes and len(self._causes) >= _MOST_CAUSES:
            return False
        known = self._causes.setdefault(kind, _Cause())
        known.times, known.text = known.times + 1, cause
        if host:
            known.hosts[host] = None
        return _is_shared(known)

    def __str__(self) -> str:
        """Ends with white space, so that a sentence may follow."""
        groups = sorted(self._causes.values(), key=lambda cause: -cause.times)
        if len(groups) == 1:
            return f"The last cause, {_where(groups[0])}: {_ended(groups[0].text)}"
        shown = [f"\n- {_where(group)}: {_ended(group.text).rstrip()}" for group in groups[:_SHOWN_CAUSES]]
        more = len(groups) - len(shown)
        return f"The last causes:{''.join(shown)}\n" + (f"- and {more} others.\n" if more else "")


def _is_shared(cause: _Cause) -> bool:
    return len(cause.hosts) >= _SHARED_BY and may_pass(cause.text)


def _where(cause: _Cause) -> str:
    hosts = list(cause.hosts)[:_SHOWN_HOSTS]
    more = len(cause.hosts) - len(hosts)
    times = f"{cause.times} times" if cause.times > 1 else "once"
    where = f" on {', '.join(hosts)}" if hosts else ""
    return f"{times}{where}" + (f" and {more} others" if more else "")


def _ended(text: str) -> str:
    """The cause; one with lines of a log keeps them as they are."""
    if "\n" in text:
        return f"{text}\n"
    return f"{text} " if text.endswith((".", "!")) else f"{text}. "
