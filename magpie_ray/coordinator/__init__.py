"""The decisions of a run: which partition goes to which worker, when to replace a worker, when to give up.

Knows no Ray: actors are reached through the protocol in `actors`. In reading order:

- `run`: from a job to its result. `job`: the event loop. `actors`: what the loop asks of them, and the ways
  to lose one. `losses`: what is done then.
- `dispatcher`: which worker gets which partition; with `slot`, `returned`, `stragglers` and `ranking`.
- `staffing`: when an actor starts, and on which nodes not; with `nodes`, `start_causes` and `starter`.
- `fleet`: the state of each worker, and its silence. `placement`: what an actor takes of a cluster.
- `ledger`: committed files. `output_sync`: the thread that keeps ledger and output in step. `output_trial`:
  whether the output still works. `completeness`: whether all rows are there at the end.
- `watcher`: what others hear and see of a job; with `actor_history`. `notice`: the time for the end.

Invariants: no row is lost or pending in two slots; an event costs no more with ten thousand slots than with
ten; whatever ends a run, committed rows stay and all actors are ended.
"""
