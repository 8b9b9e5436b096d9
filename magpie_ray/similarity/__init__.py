"""Similarity: what of a text counts when texts are compared, and how different the texts of a sample are.

Read words (a text as it is compared), then difference (the distance of two bags of words), then diversity
(the texts of a sample, all compared with all). Curation searches whole data sets with the same words and
distance; the report measures samples.

Invariants: pure; a function of the texts alone, whatever their order. What a plain installation brings
suffices.
"""
