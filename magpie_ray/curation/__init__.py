"""Curation: data sets made of other data sets on CPUs, such as which rows are near-duplicates.

Read output first: how such a data set is written, in the layout of a build.

Invariants: a curated data set is a function of its sources and settings alone, and the same command writes
the same bytes. Nothing here knows Ray or an engine.
"""
