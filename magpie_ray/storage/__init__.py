"""Whole objects under one output URL, on a local disk or in an object store.

Read `storage` first (the interface and its invariants), then `local` and `remote` (the two kinds of store
behind it), `failures` (which errors may pass, and the remedy for others) and `url` (which URLs are valid).

Invariants: a reader sees an object whole or not at all; of several creations of one key only one succeeds;
every error leaves as one of magpie_ray.errors, without credentials.
"""

from magpie_ray.storage.storage import Storage

__all__ = ["Storage"]
