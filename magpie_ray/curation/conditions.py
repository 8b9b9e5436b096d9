"""What each condition of a query removes: the conditions that WHERE joins by AND, counted one by one.

DuckDB's own parser takes the query apart, so the conditions are those that it runs. Of a query that only
wraps another one (SELECT * FROM (...) ORDER BY ...), the inner one is looked at. Invariants: the counts
follow from query and tables alone; a query that is not of this shape gets a reason in place of counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from magpie_ray.curation.database import Database
from magpie_ray.dataset.selection_record import Condition, SelectionRecord, TableRows
from magpie_ray.errors import ConfigError, QueryError

_NO_WHERE, _NOT_ALONE = "the query has no WHERE of its own", "a condition does not stand alone"

Node = Mapping[str, Any]


def count_selection(database: Database, sql: str, tables: Sequence[str], *, kept: int) -> SelectionRecord:
    """What the query takes of its tables, and what each condition removes. It reads the tables again.

    kept: the rows that the query returned.
    """
    sizes = tuple(
        TableRows(name=table, rows=database.first_row(f'SELECT count(*) FROM "{table}"')[0])
        for table in tables
    )
    tree = database.syntax_tree(sql)
    found = _filtering(tree["statements"][0]["node"], ()) if tree else None
    if tree is None or found is None:
        return SelectionRecord(tables=sizes, kept=kept, uncounted=_NO_WHERE)
    node, ctes = found
    where = node["where_clause"]
    children = where["children"] if where["type"] == "CONJUNCTION_AND" else [where]
    named = [{**child, "alias": f"condition_{place}"} for place, child in enumerate(children)]
    try:
        counts = database.first_row(_counting(database.sql_of(_only(node, named, ctes)), len(named)))
    # Such as a cast that fails for rows which another condition keeps from it, or a name of the SELECT list.
    except (ConfigError, QueryError) as exc:
        reason = str(exc).partition("\n")[0]
        return SelectionRecord(tables=sizes, kept=kept, uncounted=f"{_NOT_ALONE} ({reason})")
    joined, met, *each = counts
    return SelectionRecord(
        tables=sizes,
        kept=kept,
        joined=joined,
        met=met,
        conditions=tuple(
            Condition(sql=_text(database, node, child), failed=failed, failed_alone=alone)
            for child, failed, alone in zip(children, each[::2], each[1::2], strict=True)
        ),
    )


def _filtering(node: Node, ctes: Sequence[Node]) -> tuple[Node, Sequence[Node]] | None:
    """The SELECT that has a WHERE, and the tables that WITH has named for it; None where there is none."""
    if node["type"] != "SELECT_NODE":
        return None
    ctes = (*ctes, *node["cte_map"]["map"])
    if node["where_clause"] is not None:
        return node, ctes
    table = node["from_table"]
    if table["type"] == "SUBQUERY":
        return _filtering(table["subquery"]["node"], ctes)
    if table["type"] == "BASE_TABLE":
        for place, cte in enumerate(ctes):
            if cte["key"] == table["table_name"]:
                return _filtering(cte["value"]["query_node"], ctes[:place])
    return None


def _only(node: Node, expressions: Sequence[Node], ctes: Sequence[Node]) -> Node:
    """These expressions over what the SELECT reads, for all of its rows."""
    nothing = {"where_clause": None, "having": None, "qualify": None, "sample": None}
    grouping = {"group_expressions": [], "group_sets": [], "aggregate_handling": "STANDARD_HANDLING"}
    return {
        **node,
        **nothing,
        **grouping,
        "modifiers": [],
        "select_list": list(expressions),
        "cte_map": {"map": list(ctes)},
    }


def _counting(conditions: str, number: int) -> str:
    """SQL that counts all rows, those that meet all conditions, and for each who fails it, and it alone."""
    names = [f"condition_{place}" for place in range(number)]
    counts = ["count(*)", f"count(*) FILTER ({' AND '.join(names)})"]
    for name in names:
        alone = [f"({name}) IS NOT TRUE", *(other for other in names if other != name)]
        counts += [f"count(*) FILTER ({alone[0]})", f"count(*) FILTER ({' AND '.join(alone)})"]
    return f"SELECT {', '.join(counts)} FROM ({conditions})"


def _text(database: Database, node: Node, expression: Node) -> str:
    """An expression as SQL, without parentheses around it."""
    empty = {"type": "EMPTY", "alias": "", "sample": None}
    text = database.sql_of(_only({**node, "from_table": empty}, [expression], ())).removeprefix("SELECT ")
    inner = text[1:-1]
    is_wrapped = text.startswith("(") and database.syntax_tree(f"SELECT {inner}") is not None
    return inner if is_wrapped else text
