"""How results are shown: plain fields to text, for people.

Generated text is data: it is never markup, and does nothing to a terminal (safe_text). The same goes for
everything else that was read from storage.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from magpie_ray.utils.text import counted, is_harmless, visible

if TYPE_CHECKING:
    from magpie_ray.coordinator.run import BuildResult
    from magpie_ray.dataset.verify import Verification
    from magpie_ray.publish.push import Pushed

_SHOWN_PROBLEMS = 50


def result_text(result: "BuildResult") -> str:
    """The last words of `generate`."""
    if result.left_alone:
        return f"{result.url} is left alone: {result.left_alone}."
    if not result.new_rows:
        return f"The build is complete: {result.num_rows:,} rows in {result.url}. Nothing to do."
    seconds = max(result.seconds, 1e-9)
    rejected = f", {result.rejected:,} of {result.attempts:,} attempts rejected" if result.rejected else ""
    return (
        f"{result.new_rows:,} rows in {result.seconds:,.1f} s: {result.new_rows / seconds:,.1f} rows/s, "
        f"{result.tokens / seconds:,.0f} tokens/s{rejected}.\n"
        f"{result.engine_use}.\n"
        f"The build is complete: {result.num_rows:,} rows in {result.url}\n"
        f"  data/*.parquet  read it with datasets, pandas, polars, DuckDB, Spark or pyarrow\n"
        f"  magpie-ray show {result.url}" + (f"\n  the report      {result.report}" if result.report else "")
    )


def result_fields(result: "BuildResult") -> dict[str, Any]:
    """The same for machines."""
    return asdict(result) | {"engine_use": result.engine_use.recorded()}


def template_text(fields: dict[str, Any]) -> str:
    """`magpie-ray template` for people: white space made visible."""
    names = {
        "pre_query": "pre-query",
        "pre_query_with_system": "with system",
        "user_to_assistant": "user → assistant",
        "history_user_to_assistant": "  in history",
        "next_user": "assistant → user",
    }
    lines = [f"{fields['model']} at {fields['commit']}, system role {fields['system_role']}"]
    for name, label in names.items():
        lines += _text_and_ids(label, fields, name)
    lines.append(_told("user stops", _tokens(fields["user_stop_token_ids"], fields)))
    lines.append(_told("assistant stops", _tokens(fields["assistant_stop_token_ids"], fields)))
    if fields["stop_strings"]:
        lines.append(_told("stop strings", ", ".join(map(visible, fields["stop_strings"]))))
    lines.append(_told("turns", fields["multi_turn_problem"] or "any number"))
    if fields["can_think"]:
        lines += _text_and_ids("thinking on", fields["thinking_on"], "user_to_assistant")
        lines.append(_told("  reasoning", _reasoning(fields["thinking_on"]["reasoning"])))
        lines += _text_and_ids("thinking off", fields["thinking_off"], "user_to_assistant")
    else:
        lines.append(_told("thinking", "none that the template knows of"))
    if fields["date"]:
        lines.append(_told("dated", fields["date"]))
    lines += [_told("warning", text) for text in fields["warnings"]]
    return "\n".join(lines)


def _told(label: str, text: str) -> str:
    return f"{label:17} {text}"


def _text_and_ids(label: str, fields: dict[str, Any], name: str) -> list[str]:
    text, ids = fields[name], fields[f"{name}_ids"]
    lines = [_told(label, visible(text) if text is not None else "(takes none)")]
    return lines if ids is None else [*lines, _told("", str(ids))]


def _tokens(ids: list[int], fields: dict[str, Any]) -> str:
    return ", ".join(f"{i} {visible(fields['tokens'][str(i)])}" for i in ids)


def _reasoning(marks: dict[str, Any]) -> str:
    opened = "that text opens it" if marks["opened"] else f"begins with {visible(marks['opening'])}"
    kept = "stays in history" if marks["kept"] else "is dropped from history"
    return f"{opened}, ends with {visible(marks['closing'])}, {kept}"


def verification_fields(found: "Verification") -> dict[str, Any]:
    """`magpie-ray verify --json`."""
    return {
        "output": found.url,
        "ok": found.ok,
        "num_rows": found.num_rows,
        "rows": sum(record.rows for record in found.records),
        "partitions": len(found.records),
        "problems": list(found.problems),
    }


def verification_text(fields: dict[str, Any]) -> str:
    """`magpie-ray verify` for people."""
    head = f"{fields['output']}: {fields['rows']:,} rows in {fields['partitions']:,} files"
    if fields["ok"]:
        return f"{head}, complete and consistent: row_id 0..{fields['num_rows'] - 1}, each once"
    problems = fields["problems"]
    more = [f"... and {len(problems) - _SHOWN_PROBLEMS:,} more (--json has all)"]
    shown = [*problems[:_SHOWN_PROBLEMS], *(more if len(problems) > _SHOWN_PROBLEMS else [])]
    return "\n  ".join([f"{head}, {counted(len(problems), 'problem')}:", *shown])


def pushed_text(done: "Pushed", *, dry_run: bool) -> str:
    """The last words of `push`; of a dry run all that would be sent."""
    total = f"{counted(len(done.sent), 'file')}, {sum(size for _, size in done.sent):,} bytes"
    present = f"{counted(done.present, 'file')} there already"
    if not dry_run:
        deleted = f", {counted(len(done.deleted), 'file')} deleted" if done.deleted else ""
        return f"{done.url}: {total} sent, {present}{deleted}"
    sent = [f"  {size:>15,}  {path}" for path, size in done.sent]
    deleted_lines = [f"  {'delete':>15}  {path}" for path in done.deleted]
    return "\n".join([*sent, *deleted_lines, f"{done.url}: {total} would be sent, {present}"])


def json_text(fields: Mapping[str, Any]) -> str:
    """JSON that is safe for a terminal, too: what `safe` escapes is escaped as JSON does."""
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    return "".join(c if c == "\n" or is_harmless(c) else json.dumps(c)[1:-1] for c in text)
