"""The commands that make data sets of data sets: dedupe and select."""

from typing import Annotated, Literal

import typer

from magpie_ray.cli.options import StorageOption
from magpie_ray.cli.printing import out, stage
from magpie_ray.cli.views.curation import deduped_text, dry_run_text, selected_text
from magpie_ray.config.source import read_overrides

Dest = Annotated[
    str, typer.Argument(metavar="DEST", help="Where the data set goes: a folder or an fsspec URL.")
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A data set of magpie-ray, or Parquet or JSON lines (file, folder, glob; any fsspec URL).",
    ),
]
ComparedText = Annotated[
    Literal["instruction", "response", "conversation"],
    typer.Option(
        metavar="TEXT",
        help="instruction (the first), response (the last) or conversation (all messages).",
    ),
]
Distance = Annotated[float, typer.Option(metavar="N", help="The largest distance of near-duplicates.")]
Against = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        help="Another data set, such as a benchmark, to find near rows of; may be repeated.",
    ),
]
EmbeddingsPath = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Compare these vectors of the rows, from `score`, and not words; --against too.",
    ),
]
EmbeddingColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column of vectors, where there are several.")
]
IgnoreNumbers = Annotated[
    bool,
    typer.Option(
        "--ignore-numbers", help="Texts may be near-duplicates although their numbers or code differ."
    ),
]


def dedupe(
    source: Source,
    dest: Dest,
    of: ComparedText = "instruction",
    distance: Distance = 0.05,
    against: Against = None,
    embeddings: EmbeddingsPath = None,
    embedding_column: EmbeddingColumn = None,
    ignore_numbers: IgnoreNumbers = False,
    storage_option: StorageOption = None,
) -> None:
    """Mark near-duplicates: a data set of distances, nearest rows and repeats, for `select` to join.

    repeat_count is 0 for the row to keep of each cluster. The same command again does nothing.
    """
    from magpie_ray.curation import dedupe as curation
    from magpie_ray.publish.card import write_card
    from magpie_ray.storage.storage import Storage

    options = read_overrides(storage_option or ())
    spec = curation.DedupeSpec(
        source=source,
        of=of,
        distance=distance,
        against=tuple(against or ()),
        embeddings=embeddings,
        embedding_column=embedding_column,
        ignore_numbers=ignore_numbers,
        storage_options=options,
    )
    storage = Storage(dest, options)
    with stage(f"looking for near-duplicates in {source}") as tell:
        deduped = curation.dedupe(
            storage,
            spec,
            on_step=tell,
            finishing=lambda records: write_card(storage, records=records),
        )
    out(deduped_text(deduped, has_others=bool(against)))


def select(
    dest: Dest,
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
