"""The results of the commands that make data sets of data sets, as text for people."""

import json
from typing import TYPE_CHECKING

from magpie_ray.utils.text import NO_FIGURE, bytes_text, counted, shortened

if TYPE_CHECKING:
    from magpie_ray.curation.dedupe import Deduped
    from magpie_ray.curation.select import DryRun, Selected
    from magpie_ray.dataset.selection_record import SelectionRecord
    from magpie_ray.publish.preference import Pairs

_SHOWN_CHARACTERS = 300


def deduped_text(deduped: "Deduped", *, has_others: bool) -> str:
    """What `magpie-ray dedupe` prints at its end."""
    if deduped.repeats is None:
        return f"Near-duplicates are marked: {deduped.rows:,} rows in {deduped.url}. Nothing to do."
    lines = [
        f"{deduped.rows:>12,}  rows in {deduped.url}",
        f"{deduped.rows - deduped.repeats:>12,}  rows to keep (repeat_count = 0)",
        f"{deduped.repeats:>12,}  rows that repeat one of these",
    ]
    if has_others:
        lines.append(f"{deduped.near_others:>12,}  rows that are near another set (against_distance)")
    return "\n".join(lines)


def selected_text(selected: "Selected") -> str:
    """What `magpie-ray select` prints at its end."""
    if not selected.is_new:
        return f"The selection is complete: {selected.rows:,} rows in {selected.url}. Nothing to do."
    return (
        f"{counted(selected.rows, 'row')} in {selected.url}\n"
        f"{taken_text(selected.taken)}"
        f"  data/*.parquet  read it with datasets, pandas, polars, DuckDB, Spark or pyarrow\n"
        f"  magpie-ray show {selected.url}"
    )


def taken_text(taken: "SelectionRecord | None") -> str:
    """What a query took of its tables and what its conditions removed: lines, each with its end."""
    if taken is None:
        return ""
    lines = [f"{table.rows:>12,}  rows in {table.name}" for table in taken.tables]
    if taken.uncounted:
        lines.append(f"{NO_FIGURE:>12}  what each condition removes is not counted: {taken.uncounted}")
    else:
        lines.append(f"{taken.joined:>12,}  rows before WHERE")
        lines += [
            f"{condition.failed:>12,}  fail {shortened(condition.sql, _SHOWN_CHARACTERS)}: "
            f"{condition.failed_alone:,} of them nothing else"
            for condition in taken.conditions
        ]
        lines.append(f"{taken.met:>12,}  rows meet all conditions")
    return "".join(f"{line}\n" for line in [*lines, f"{taken.kept:>12,}  rows returned"])


def dry_run_text(tried: "DryRun") -> str:
    """What `magpie-ray select --dry-run` prints: the size, the columns and some rows."""
    columns = [f"  {field.name}: {field.type}" for field in tried.schema]
    texts = [json.dumps(row, ensure_ascii=False, default=str) for row in tried.first]
    head = f"{tried.rows:,} rows, {bytes_text(tried.bytes)} before compression; nothing is written."
    taken = taken_text(tried.taken).splitlines()
    return "\n".join([head, *taken, *columns, *(shortened(text, _SHOWN_CHARACTERS) for text in texts)])


def pairs_text(pairs: "Pairs", destination: str) -> str:
    """What `magpie-ray export --to preference` prints: its numbers add up to the rows that were read."""
    from magpie_ray.publish.preference import test_name

    lines = [f"{pairs.train:>12,}  pairs in {destination}"]
    if pairs.test:
        lines.append(f"{pairs.test:>12,}  pairs in {test_name(destination)}")
    lines += [f"{times:>12,}  rows left out: {reason}" for reason, times in sorted(pairs.left_out.items())]
    return "\n".join([f"{pairs.rows:>12,}  rows", *lines])
