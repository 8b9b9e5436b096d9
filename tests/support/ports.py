"""Free ports, for servers that can't choose one themselves."""

import socket


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
