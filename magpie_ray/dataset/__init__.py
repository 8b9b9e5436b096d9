"""What lies at an output: Parquet files of rows, and the records beside them.

Read in this order: layout (every key, and how records are stored); build_record (what a build is),
run_records (its runs) and actor_history (their actors); columns and parquet (rows to files), data_folder,
partitioning and manifest (what is committed, what is pending), completion (the end of a build); reader,
rejects and verify (for readers); schedule (many builds of one path).

Invariants: a build is created once and never changes its identity; the footers of its files are the truth
about what is committed, and every other record can be lost without losing rows.
"""
