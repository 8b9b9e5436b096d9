"""A build's status for people and for other programs."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from magpie_ray.monitoring.status import RunStatus, Status, history, rate
from magpie_ray.utils.text import bytes_text, clock_text, percent, span_text

_PARTS = 24
_BARS = "▁▂▃▄▅▆▇█"
_RECENT = {"last_10_minutes": 600.0, "last_hour": 3600.0, "last_day": 86_400.0}
_AGAIN = "run the same command again"


def status_fields(status: Status) -> dict[str, Any]:
    """`magpie-ray status --json`: rates are those of commits; a driver's word of itself is its heartbeat."""
    tally, driver = status.tally, status.driver
    last = status.commits[-1].at if status.commits else None
    # A build that nobody works on has its rates up to its last commit.
    end = status.now if status.state == "running" or last is None else last
    begin = min(end, _began(driver)) if driver else end
    rates = {
        name: rate(status.commits, begin=max(begin, end - seconds), end=end)
        for name, seconds in _RECENT.items()
    }
    over_time = history(status.commits, begin=begin, end=end, parts=_PARTS)
    return {
        "output": status.url,
        "state": status.state,
        "complete": status.complete,
        "num_rows": status.num_rows,
        "rows": tally.rows,
        "partitions": len(status.records),
        "bytes": status.size,
        "attempts": tally.attempts,
        "rejected": dict(tally.rejected),
        "user_tokens": tally.user_tokens,
        "assistant_tokens": tally.assistant_tokens,
        "rows_per_second": {name: round(value, 3) for name, value in rates.items()},
        "history": {
            "seconds": round(end - begin, 1),
            "rows_per_second": [round(value, 3) for value in over_time],
        },
        "last_commit_seconds_ago": None if last is None else round(max(0.0, status.now - last), 1),
        "eta_seconds": _eta(status, rates["last_hour"]),
        "heartbeat": _beat(driver) if driver else None,
        "fingerprint": status.build.fingerprint,
        "runs": [_run(run) for run in status.runs],
    }


def _began(driver: RunStatus) -> float:
    """By its own clock, as nothing else tells: only rates depend on it."""
    return datetime.fromisoformat(driver.record.started).timestamp()


def _eta(status: Status, rows_per_second: float) -> float | None:
    """By the driver's own pace, or by that of its commits; None where nobody is at work."""
    if status.state != "running" or status.driver is None:
        return None
    told = (status.driver.beat or {}).get("eta_seconds")
    if isinstance(told, int | float):
        return max(0.0, round(told - status.driver.quiet_seconds))
    left = status.num_rows - status.tally.rows
    return round(left / rows_per_second) if rows_per_second else None


def _beat(driver: RunStatus) -> dict[str, Any]:
    return {
        "run": driver.record.number,
        "seconds_ago": round(driver.quiet_seconds, 1),
        "alive": driver.alive,
        **{name: value for name, value in (driver.beat or {}).items() if name != "token"},
    }


def _run(run: RunStatus) -> dict[str, Any]:
    fields = asdict(run.record)
    return {name: value for name, value in fields.items() if name not in ("config", "token")}


def status_text(fields: dict[str, Any]) -> str:
    """`magpie-ray status` for people."""
    share = fields["rows"] / fields["num_rows"] if fields["num_rows"] else 0.0
    rejected = ", ".join(f"{n:,} {reason}" for reason, n in fields["rejected"].items()) or "none"
    last = fields["last_commit_seconds_ago"]
    lines = [
        f"{fields['output']}: {'complete' if fields['complete'] else 'not complete'}",
        f"rows        {fields['rows']:,} of {fields['num_rows']:,} committed ({percent(share)})",
        f"driver      {_driver_text(fields)}",
    ]
    if fields["eta_seconds"] is not None:
        lines.append(f"time left   about {clock_text(fields['eta_seconds'])}")
    if last is not None:
        over_time = fields["history"]
        lines += [
            f"rate        {_rates_text(fields['rows_per_second'], over_time['seconds'])}",
            f"over time   {bars(over_time['rows_per_second'])} {clock_text(over_time['seconds'])}",
            f"last commit {span_text(last)} ago",
        ]
    lines += [
        f"files       {fields['partitions']:,}, {bytes_text(fields['bytes'])}",
        f"attempts    {fields['attempts']:,}, rejected: {rejected}",
        f"tokens      {fields['user_tokens']:,} user, {fields['assistant_tokens']:,} assistant",
    ]
    for run in fields["runs"]:
        cause = f": {run['cause'].splitlines()[0]}" if run["cause"] else ""
        lines.append(
            f"run {run['number']:<7} {run['outcome']}, of {run['num_rows']:,} rows, on {run['host']}, "
            f"{run['started']} to {run['ended'] or '...'}{cause}"
        )
    return "\n".join(lines)


def _driver_text(fields: dict[str, Any]) -> str:
    """Whether anybody is at work, and what to do if not."""
    beat = fields["heartbeat"]
    match fields["state"]:
        case "running":
            told = f"run {beat['run']} is at work, heartbeat {span_text(beat['seconds_ago'])} ago"
            if "actors_up" not in beat:
                return told
            lost = f", {beat['actors_replaced']} replaced" if beat["actors_replaced"] else ""
            return (
                f"{told}: {beat['rows']:,} rows finished, {beat['rows_per_second']:,.1f} rows/s, "
                f"{beat['tokens_per_second']:,.0f} tokens/s, actors: {beat['actors_up']} up, "
                f"{beat['actors_waiting'] + beat['actors_starting']} to come{lost}"
            )
        case "gone":
            quiet = span_text(beat["seconds_ago"])
            return f"no heartbeat for {quiet}: the driver of run {beat['run']} seems to be gone; {_AGAIN}"
        case "stopped":
            return f"none: run {beat['run']} has ended; {_AGAIN} to go on"
        case "new":
            return f"none: no run has begun; {_AGAIN}"
    return "none: all is done"


def _rates_text(rates: dict[str, float], seconds: float) -> str:
    """Of the times that the run has lasted for, or of the run."""
    told = {name: value for name, value in rates.items() if _RECENT[name] <= seconds}
    if not told:
        return f"{rates['last_10_minutes']:,.1f} rows/s since the run began"
    return ", ".join(f"{value:,.1f} rows/s in the {name.replace('_', ' ')}" for name, value in told.items())


def bars(values: list[float]) -> str:
    """One character a value, by its height against the highest."""
    highest = max(values, default=0.0)
    if not highest:
        return _BARS[0] * len(values)
    return "".join(_BARS[round(value / highest * (len(_BARS) - 1))] for value in values)
