"""The work of one actor: partitions in, committed files and events out.

In reading order: `spec` (what a worker is made from, as data), `output_check` and `model_download` (before
the engine starts), `parts` (makes recipe, engine and window from the spec), `worker` (the loop), `task` (what
the loop drives: `generating` for conversations, `scoring` for scores), `input_feed` with `starts` (what rows
start with, loaded ahead), `committer` (from rows to files), `events` (what the coordinator hears).

Invariants: a file holds the rows from a partition's first row on, without a gap; no row is written that is
committed already; a worker that is stopped commits the finished heads of its partitions first.
"""
