"""The command line: its commands, their options, and what they print.

Read `program` (the entry point and exit codes), the commands in `init`, `building`, `reading`, `publishing`
and `curating`, then `options` (what commands share), `help` (examples), `printing` (how commands print) and
the package `views` (results as text).

Invariants: a command imports heavy libraries only when it needs them, after its arguments and config are
checked; nothing that is printed can control a terminal; every failure is one message and an exit code.
"""

from magpie_ray.cli.program import app, main

__all__ = ["app", "main"]
