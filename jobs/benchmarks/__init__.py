"""Benchmarks: each module measures one thing side by side in one run and returns a Result."""
