"""Tables that users bring: found, read in batches, checked, and copied for workers that read a few rows.

Read source (which files), then batches, readers, text_readers and column_types (their rows, some at a time),
scan (one pass over all rows: their number, a digest, problems), copy (the used columns as small blocks in the
build) and blocks (ranged reads of those). worker.input_feed loads them ahead of the rows that start.

Invariants: files are in the order of their names, and their rows are numbered through. Nothing holds all
rows. A problem names the file and the line or row. A row's input follows from (seed, row_id) and the content
alone.
"""
