"""A model: its commit, its tokenizer, its size. Nothing here loads weights.

Read `resolve` first (a name becomes a `Model` with a commit), then `side_files` (small files, which may be
broken), `tokenizer` (loading it) and `mistral_tokenizer`, then `context` (tokens of a sequence) and `size`
(parameters and bytes).

Invariant: the driver resolves the commit once, and every process loads exactly that commit.
"""
