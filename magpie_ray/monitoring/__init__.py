"""How a build is doing: while it runs, and from its storage alone.

Read `progress` (the display and the log), `notebook` (its line in a notebook), `metrics` (for Prometheus),
`heartbeat` (the driver's own object in storage) and `status` (what anybody can read from storage).

Invariants: all but `status` watch a job and never hold it up, and `status` writes nothing.
"""
