"""How a build is doing: while it runs, and from its storage alone.

Read `progress` (the display and the log), `metrics` (for Prometheus), `heartbeat` (the driver's own object in
storage) and `status` (what anybody can read from storage).

Invariants: the first three watch a job and never hold it up; `status` writes nothing.
"""
