"""The decisions of a run: which partition goes to which worker, when to replace a worker, when to give up.

Knows no Ray: actors are reached through the protocol in `actors`. In reading order: `run` (from a job to its
result), `job` (the event loop), `actors` (what the loop asks of them, and how one is lost), `dispatcher` (who
works on which partition; with `slot`, `stragglers` and `ranking`), `fleet` (the state of each worker, and its
silence), `ledger` (committed files) and `output_sync` (the thread that keeps ledger and output in step),
`watcher` (what others hear and see of a job) with `actor_history`, and `placement` (what an actor takes).

Invariants: no row is lost or pending in two slots; an event costs no more with ten thousand slots than with
ten; whatever ends a run, committed rows stay and all actors are ended.
"""
