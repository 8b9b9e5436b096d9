"""The commands that make data sets of data sets: select."""

from typing import Annotated

import typer

from magpie_ray.cli.options import StorageOption
from magpie_ray.cli.printing import out, stage
from magpie_ray.cli.views.curation import dry_run_text, selected_text
from magpie_ray.config.source import read_overrides


def select(
    dest: Annotated[
        str, typer.Argument(metavar="DEST", help="Where the data set goes: a folder or an fsspec URL.")
    ],
    sources: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="NAME=PATH",
            help="A table of the query: a data set of magpie-ray, or Parquet or JSON lines (file, folder, "
            "glob; any fsspec URL). May be repeated; tables are joined by row_id.",
        ),
    ],
    sql: Annotated[
        str, typer.Option(metavar="QUERY|FILE", help="One SELECT of DuckDB, or a file that ends in .sql.")
    ],
    rows_per_file: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rows of a file. A file is in memory while it is written.")
    ] = 100_000,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory of DuckDB. What needs more goes to TMPDIR.")
    ] = "1GB",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run the query, show its size and ten rows, write nothing.")
    ] = False,
    storage_option: StorageOption = None,
) -> None:
    """Make a data set of what an SQL query returns: filter, join, mix, compact.

    Rows get a new row_id from 0; the old one becomes source_row_id. The same command again does nothing.
    """
    from magpie_ray.curation import select as curation
    from magpie_ray.curation.tables import parse_tables
    from magpie_ray.publish.card import write_card
    from magpie_ray.storage.storage import Storage

    options = read_overrides(storage_option or ())
    spec = curation.SelectSpec(
        sources=parse_tables(sources),
        sql=curation.read_query(sql),
        rows_per_file=rows_per_file,
        memory=memory,
        storage_options=options,
    )
    storage = Storage(dest, options)
    with stage("running the query") as tell:
        if dry_run:
            tried = curation.dry_run(spec, on_rows=lambda rows: tell(f"{rows:,} rows"))
        else:
            selected = curation.select(
                storage,
                spec,
                on_rows=lambda rows: tell(f"{rows:,} rows"),
                finishing=lambda records: write_card(storage, records=records),
            )
    out(dry_run_text(tried) if dry_run else selected_text(selected))
