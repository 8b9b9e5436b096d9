"""The command line: its commands, what they take and what they print."""

from magpie_ray.cli.program import app, main

__all__ = ["app", "main"]
