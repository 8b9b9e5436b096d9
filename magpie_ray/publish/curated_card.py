"""What the card says of a data set that dedupe or select has made: its columns, its query, what that took.

Pure.
"""

from typing import Any

from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.selection_record import SelectionRecord
from magpie_ray.utils.text import fenced, percent

# Selections have the columns of dedupe, too.
_MEANINGS = {
    "source_row_id": "the row's row_id in its source",
    "min_neighbor_distance": "the distance to the nearest other row, from 0 for the same; for texts 1 where "
    "no row within 0.2 was found",
    "min_similar_row_id": "the row_id of that row in the source; null where none was found",
    "repeat_count": "how many rows of its cluster of near-duplicates come before the row; 0 for the row to "
    "keep",
    "against_distance": "the distance to the nearest text of the data sets that the rows were compared with; "
    "for texts 1 for none within 0.2",
    "against_row_id": "the row_id of that text in its data set; null for none",
    "against_set": "the number of that data set among those of --against, from 0; null for none",
}


def curated_title(kind: str) -> str:
    """The title of what a command made."""
    titles = {"select": "Selected Magpie rows", "dedupe": "Near-duplicates among Magpie rows"}
    return titles.get(kind, f"Made by {kind}")


def curated_meaning(kind: str, name: str) -> str:
    """What a column is that no model wrote."""
    return _MEANINGS.get(name, f"from {kind}")


def selection_body(record: BuildRecord, taken: SelectionRecord | None) -> list[str]:
    """The query, where its tables lay and what they were, and what each of its conditions removed."""
    places: Any = record.config.get("from") or {}
    lines = []
    for name, place in places.items():
        known: Any = record.identity.get(f"from.{name}") or {}
        facts = ", ".join(f"{key} {value}" for key, value in known.items())
        lines.append(f"| `{name}` | {place} | {facts} |")
    return [
        f"Selection `{record.fingerprint}`, begun {record.created}. The query:",
        fenced(f"{record.identity['sql']}\n", "sql"),
        "\n".join(["| table | read from | content |", "|---|---|---|", *lines]),
        *([] if taken is None else _taken(taken)),
    ]


def _taken(taken: SelectionRecord) -> list[str]:
    """Which share of its tables was kept, and what each condition removed."""
    shares = ", ".join(
        f"{table.rows:,} of `{table.name}` ({percent(taken.kept / max(1, table.rows))})"
        for table in taken.tables
    )
    kept = f"It kept {taken.kept:,} rows, from {shares}."
    if taken.uncounted or not taken.joined:
        return [
            kept,
            *([f"What each condition removed is not counted: {taken.uncounted}."] * bool(taken.uncounted)),
        ]
    lines = [
        f"| {_cell(condition.sql)} | {condition.failed:,} | {condition.failed_alone:,} |"
        for condition in taken.conditions
    ]
    return [
        f"{kept} Before WHERE there were {taken.joined:,}, and {taken.met:,} of them "
        f"({percent((taken.met or 0) / taken.joined)}) meet all conditions.",
        "\n".join(["| condition | rows that fail it | that fail it alone |", "|---|---:|---:|", *lines]),
    ]


def _cell(sql: str) -> str:
    """SQL in a cell of a table."""
    text = " ".join(sql.split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
