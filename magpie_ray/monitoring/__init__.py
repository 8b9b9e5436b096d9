"""How a build stands: display, metrics, heartbeat, status."""
