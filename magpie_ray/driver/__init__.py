"""The driver: everything that touches Ray. No other room imports ray.

In reading order: run_build (one run from its start to its end), connect (which cluster, and the signals to
stop), cluster_watch (its nodes, and whether it is still there), wiring (the parts of a run, put together),
ray_actors (start the actors and hear them), actor_losses (how one was lost), actor_process (what runs in
each), orphan_watchdog (no child process of an actor outlives it), actor_logs (why an actor was lost),
ray_metrics (what Prometheus reads), and engines_here with sample and preview (rows of a build that are made
on this machine and thrown away).

Invariants: decisions are made in other rooms and carried out here; however a run ends, committed files stay
and no process of an engine stays.
"""

from magpie_ray.driver.run_build import generate

__all__ = ["generate"]
