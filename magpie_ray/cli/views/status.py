"""The result of `magpie-ray status` as text for people and as fields for programs."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from magpie_ray.counters import work_of
from magpie_ray.monitoring.status import Status, history, rate
from magpie_ray.utils.text import bytes_text, clock_text, percent, span_text

_PARTS = 24
_BARS = "▁▂▃▄▅▆▇█"
_RECENT = {"last_10_minutes": 600.0, "last_hour": 3600.0, "last_day": 86_400.0}
_WITHOUT_MODEL = {"dedupe", "select"}
_AGAIN = "run the same command again"


def status_fields(status: Status) -> dict[str, Any]:
    """`magpie-ray status --json`. Rates count commits; `heartbeat` has what the driver wrote about itself."""
    tally, driver = status.tally, status.driver
    last = status.commits[-1].at if status.commits else None
    # Without a driver at work, rates end at the last commit.
    end = status.now if status.state == "running" or last is None else last
    # The start is by the driver's own clock, the only source; only rates depend on it.
    begin = min(end, datetime.fromisoformat(driver.record.started).timestamp()) if driver else end
    rates = {
        name: rate(status.commits, begin=max(begin, end - seconds), end=end)
        for name, seconds in _RECENT.items()
    }
    over_time = history(status.commits, begin=begin, end=end, parts=_PARTS)
    return {
        "output": status.url,
        "job": status.build.job,
        "state": status.state,
        "complete": status.complete,
        "num_rows": status.num_rows,
        "rows": tally.rows,
        "partitions": len(status.records),
        "bytes": status.size,
        "attempts": tally.attempts,
        "rejected": dict(tally.rejected),
        "unanswered": tally.unanswered,
        "user_tokens": tally.user_tokens,
        "assistant_tokens": tally.assistant_tokens,
        "rows_per_second": {name: round(value, 3) for name, value in rates.items()},
        "history": {
            "seconds": round(end - begin, 1),
            "rows_per_second": [round(value, 3) for value in over_time],
        },
        "last_commit_seconds_ago": None if last is None else round(max(0.0, status.now - last), 1),
        "eta_seconds": _eta(status, rates["last_hour"]),
        "heartbeat": driver
        and {
            "run": driver.record.number,
            "seconds_ago": round(driver.quiet_seconds, 1),
            "alive": driver.alive,
            **_without(driver.beat or {}, "token"),
        },
        "fingerprint": status.build.fingerprint,
        "problems": list(status.problems),
        "runs": [
            {**_without(asdict(run.record), "config", "token"), "outcome": run.outcome} for run in status.runs
        ],
    }


def _eta(status: Status, rows_per_second: float) -> float | None:
    """From the driver's heartbeat, or else from the rate of commits; None when no driver is at work."""
    if status.state != "running" or status.driver is None:
        return None
    eta = (status.driver.beat or {}).get("eta_seconds")
    if isinstance(eta, int | float):
        return max(0.0, round(eta - status.driver.quiet_seconds))
    left = status.num_rows - status.tally.rows
    return round(left / rows_per_second) if rows_per_second else None


def _without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def status_text(fields: dict[str, Any]) -> str:
    """`magpie-ray status` as text."""
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
    lines.append(f"files       {fields['partitions']:,}, {bytes_text(fields['bytes'])}")
    if fields["job"] == "score":
        lines.append(f"lacking     {fields['unanswered']:,} rows without a value, refused: {rejected}")
    elif fields["job"] not in _WITHOUT_MODEL:
        lines += [
            f"attempts    {fields['attempts']:,}, rejected: {rejected}",
            f"tokens      {fields['user_tokens']:,} user, {fields['assistant_tokens']:,} assistant",
        ]
    for run in fields["runs"]:
        cause = f": {run['cause'].splitlines()[0]}" if run["cause"] else ""
        lines.append(
            f"run {run['number']:<7} {run['outcome']}, of {run['num_rows']:,} rows, on {run['host']}, "
            f"{run['started']} to {run['ended'] or '...'}{cause}"
        )
    lines += [f"problem     {problem}; see `magpie-ray verify`" for problem in fields["problems"]]
    return "\n".join(lines)


def _driver_text(fields: dict[str, Any]) -> str:
    """Whether a driver is at work, and what to do if not."""
    beat = fields["heartbeat"]
    match fields["state"]:
        case "running":
            at_work = f"run {beat['run']} is at work, heartbeat {span_text(beat['seconds_ago'])} ago"
            if "actors_up" not in beat:
                return at_work
            lost = f", {beat['actors_replaced']} replaced" if beat["actors_replaced"] else ""
            nodes = beat.get("nodes_left_alone")
            alone = f"; left alone after failures: {', '.join(nodes)}" if nodes else ""
            return (
                f"{at_work}: {beat['rows']:,} rows finished, {beat['rows_per_second']:,.1f} rows/s, "
                f"{beat['tokens_per_second']:,.0f} {work_of(fields['job'])}/s, "
                f"actors: {beat['actors_up']} up, "
                f"{beat['actors_waiting'] + beat['actors_starting']} to come{lost}{alone}"
            )
        case "gone":
            quiet = span_text(beat["seconds_ago"])
            return f"no heartbeat for {quiet}: the driver of run {beat['run']} seems to be gone; {_AGAIN}"
        case "stopped":
            return f"none: run {beat['run']} has ended; {_AGAIN} to resume"
        case "new":
            return f"none: no run has begun; {_AGAIN}"
    return "none: all is done"


def _rates_text(rates: dict[str, float], seconds: float) -> str:
    """The rates over the spans that the run has lasted, or over the whole run."""
    known = {name: value for name, value in rates.items() if _RECENT[name] <= seconds}
    if not known:
        return f"{rates['last_10_minutes']:,.1f} rows/s since the run began"
    return ", ".join(f"{value:,.1f} rows/s in the {name.replace('_', ' ')}" for name, value in known.items())


def bars(values: list[float]) -> str:
    """One character per value, as high as the value is against the highest."""
    highest = max(values, default=0.0)
    if not highest:
        return _BARS[0] * len(values)
    return "".join(_BARS[round(value / highest * (len(_BARS) - 1))] for value in values)
