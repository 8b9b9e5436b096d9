"""A model: which commit, its tokenizer, its size."""
