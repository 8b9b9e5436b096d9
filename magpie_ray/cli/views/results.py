"""The results of init, generate, template, verify and push as text for people."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from magpie_ray.counters import work_of
from magpie_ray.utils.text import counted, span_text, visible

if TYPE_CHECKING:
    from magpie_ray.config.ready import ReadyConfig
    from magpie_ray.coordinator.run import BuildResult
    from magpie_ray.dataset.verify import Verification
    from magpie_ray.publish.push import Pushed
    from magpie_ray.publish.report.report import Report

_SHOWN_PROBLEMS = 50


def result_text(result: "BuildResult", *, verbose: bool = False) -> str:
    """What `magpie-ray generate` or a pass prints at its end. verbose: also how well engines were used."""
    if result.left_alone:
        return f"{result.url} is left alone: {result.left_alone}."
    if not result.new_rows:
        return f"The build is complete: {counted(result.num_rows, 'row')} in {result.url}. Nothing to do."
    seconds = max(result.seconds, 1e-9)
    if result.job == "score":
        refused = f"{result.rejected:,} of {result.attempts:,} rows lack a value"
    else:
        refused = f"{result.rejected:,} of {result.attempts:,} attempts rejected"
    return (
        f"{counted(result.new_rows, 'row')} in {span_text(result.wall_seconds)}, of which engines were "
        f"up for {span_text(result.seconds)}: {result.new_rows / seconds:,.1f} rows/s, "
        f"{result.tokens / seconds:,.0f} {work_of(result.job)}/s"
        f"{f', {refused}' if result.rejected else ''}.\n"
        + (f"{result.engine_use}.\n" if verbose else "")
        + f"The build is complete: {counted(result.num_rows, 'row')} in {result.url}\n"
        f"  data/*.parquet  read it with datasets, pandas, polars, DuckDB, Spark or pyarrow\n"
        f"  magpie-ray show {result.url}"
        + (f"\n  the report      {result.report}" if result.report else "")
        + "".join(f"\nlook at: {text}" for text in result.advice)
    )


def report_text(fields: dict[str, Any]) -> str:
    """What `magpie-ray report` prints: where the report is, and the card."""
    return "\n".join(filter(None, (fields["report"], fields["card"])))


def report_fields(written: "Report", card: str | None) -> dict[str, Any]:
    """`magpie-ray report --json`: where the report is, what it says on top, how diverse instructions are."""
    return {
        "report": written.location,
        "card": card,
        "advice": list(written.advice),
        "diversity": [
            {"kind": group.kind, "key": group.key, **asdict(group.diversity)}
            for group in written.facts.diversity
        ],
    }


def ready_text(configs: Sequence["ReadyConfig"]) -> str:
    """What `magpie-ray init` prints: a line for each ready config, and what comes next."""
    width = max(len(config.name) for config in configs) + 2
    lines = [f"{config.name:{width}}{config.summary}" for config in configs]
    next_steps = "magpie-ray init demo   writes demo.yaml here\nmagpie-ray plan demo   shows what it makes"
    return "\n".join([*lines, "", next_steps])


def template_text(fields: dict[str, Any]) -> str:
    """`magpie-ray template` as text, with white space made visible."""
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
    lines.append(_line("user stops", _tokens(fields["user_stop_token_ids"], fields)))
    lines.append(_line("assistant stops", _tokens(fields["assistant_stop_token_ids"], fields)))
    if fields["stop_strings"]:
        lines.append(_line("stop strings", ", ".join(map(visible, fields["stop_strings"]))))
    lines.append(_line("turns", fields["multi_turn_problem"] or "any number"))
    if fields["can_think"]:
        lines += _text_and_ids("thinking on", fields["thinking_on"], "user_to_assistant")
        lines.append(_line("  reasoning", _reasoning(fields["thinking_on"]["reasoning"])))
        lines += _text_and_ids("thinking off", fields["thinking_off"], "user_to_assistant")
    else:
        lines.append(_line("thinking", "not in this template"))
    if fields["date"]:
        lines.append(_line("dated", fields["date"]))
    lines += [_line("warning", text) for text in fields["warnings"]]
    return "\n".join(lines)


def _line(label: str, text: str) -> str:
    return f"{label:17} {text}"


def _text_and_ids(label: str, fields: dict[str, Any], name: str) -> list[str]:
    text, ids = fields[name], fields[f"{name}_ids"]
    lines = [_line(label, visible(text) if text is not None else "(takes none)")]
    return lines if ids is None else [*lines, _line("", str(ids))]


def _tokens(ids: list[int], fields: dict[str, Any]) -> str:
    return ", ".join(f"{i} {visible(fields['tokens'][str(i)])}" for i in ids)


def _reasoning(marks: dict[str, Any]) -> str:
    opening = "opened by that text" if marks["opened"] else f"begins with {visible(marks['opening'])}"
    history = "stays in history" if marks["kept"] else "is dropped from history"
    return f"{opening}, ends with {visible(marks['closing'])}, {history}"


def verification_fields(verification: "Verification") -> dict[str, Any]:
    """`magpie-ray verify --json`."""
    return {
        "output": verification.url,
        "ok": verification.ok,
        "num_rows": verification.num_rows,
        "rows": sum(record.rows for record in verification.records),
        "partitions": len(verification.records),
        "problems": list(verification.problems),
        "notes": list(verification.notes),
        "files_without_hash": verification.unhashed,
    }


def verification_text(fields: dict[str, Any]) -> str:
    """`magpie-ray verify` as text."""
    head = f"{fields['output']}: {counted(fields['rows'], 'row')} in {counted(fields['partitions'], 'file')}"
    notes = [f"note: {note}" for note in fields["notes"]]
    if fields["ok"]:
        whole = f"{head}, complete and consistent: row_id 0..{fields['num_rows'] - 1}, each once"
        return "\n  ".join([whole, *notes])
    problems = fields["problems"]
    lines = [f"{head}, {counted(len(problems), 'problem')}:", *problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"... and {len(problems) - _SHOWN_PROBLEMS:,} more (--json has all)")
    return "\n  ".join([*lines, *notes])


def pushed_text(pushed: "Pushed", *, dry_run: bool) -> str:
    """What `magpie-ray push` prints at its end; for a dry run, every file that would be sent or deleted."""
    total = f"{counted(len(pushed.sent), 'file')}, {sum(size for _, size in pushed.sent):,} bytes"
    present = f"{counted(pushed.present, 'file')} there already"
    if not dry_run:
        deleted = f", {counted(len(pushed.deleted), 'file')} deleted" if pushed.deleted else ""
        return f"{pushed.url}: {total} sent, {present}{deleted}"
    sent = [f"  {size:>15,}  {path}" for path, size in pushed.sent]
    deleted_lines = [f"  {'delete':>15}  {path}" for path in pushed.deleted]
    return "\n".join([*sent, *deleted_lines, f"{pushed.url}: {total} would be sent, {present}"])
