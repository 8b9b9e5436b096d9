"""Numbers and labels about the rows of a data set, from one engine.

Read in this order: rows (what is read of a row), questions (a row as the text that asks for a label), labels
(the labels as tokens, and the search for the most probable one), columns (the requests and values of each
kind of column), scorer (Scorer, which keeps the engine's batch full). Invariants: a row's requests are
submitted together, so that they find what they share in the cache; a row that lacks a text, or does not fit
the context, gets nulls and is counted.
"""

from magpie_ray.scoring.scorer import Scorer

__all__ = ["Scorer"]
