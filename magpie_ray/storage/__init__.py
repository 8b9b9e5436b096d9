"""Whole objects under one output URL, on a local disk or in an object store.

Read `storage` first (the interface and its invariants), then `store` with `local` and `remote` (the two kinds
of store behind it), `clients` (how fsspec's clients are set up), `moving` (stores whose files get their names
by a move), `probe` (what is tried at the start), `failures` (what an error means, and the remedy), `refusals`
(how that is told), `retries` (for how long it is tried again), `deadline` (by when a process that ends has
done with its output) and `url` (which URLs are valid).

Invariants: a reader sees an object whole or not at all; of several creations of one key only one succeeds;
every error leaves as one of magpie_ray.errors, without credentials.
"""

from magpie_ray.storage.storage import Storage

__all__ = ["Storage"]
