"""The source of a pass: a finished data set, whose rows are read by range while the pass goes over them.

Read shapes (which columns hold a row's messages) and messages (what a row's values say), then ranges (bytes
of files), streams (rows of one file, from the nearest place that can be found), parquet_rows and json_lines
(the two formats). builds and files look at a data set of magpie_ray and at files of others; index keeps what
they found; reader loads rows.

Invariants: nothing holds all rows. Row i of an index is the same row as long as the index lives: a file that
has changed since is an error. A row that can't be used is refused with its file, its place and a remedy,
never left out. No message holds a credential.
"""
