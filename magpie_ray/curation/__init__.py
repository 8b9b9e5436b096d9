"""Curation: data sets made of other data sets on CPUs, such as which rows are near-duplicates.

Read output first: how such a data set is written, in the layout of a build. For near-duplicates then distance
(over the words of similarity/), corpus (many texts as arrays), minhash and candidates (which pairs are
compared), neighbours (from pairs to rows), lexical and semantic (the two searches), embeddings and dedupe
(the whole). For queries: table_files and tables (what DuckDB reads), database (what a query may do),
selection (the columns of its data set), conditions (what each of them removes), select (the whole) and where
(conditions for show and export).

Invariants: a curated data set is a function of its sources and settings alone, and the same command writes
the same bytes. Nothing here knows Ray or an engine.
"""
