"""A model: its commit, its tokenizer, its size. Nothing here loads weights.

Read `resolve` first (a name becomes a `Model` with a commit), then `tokenizer` (loading it), then `size`
(parameters and bytes).

Invariant: the driver resolves the commit once, and every process loads exactly that commit.
"""
