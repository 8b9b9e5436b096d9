"""A real FTP server: pyftpdlib in a thread. It can rename, and knows no exclusive creation."""

import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, kw_only=True, slots=True)
class FtpServer:
    """A running server of the files below `root`."""

    port: int
    root: Path

    @property
    def url(self) -> str:
        return f"ftp://127.0.0.1:{self.port}"

    @property
    def storage_options(self) -> dict[str, object]:
        return {"username": "user", "password": "password-1"}


@pytest.fixture
def ftp_server(tmp_path: Path) -> Iterator[FtpServer]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it needs modules that Python 3.12 lacks, and brings its own there
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import ThreadedFTPServer
    authorizer = DummyAuthorizer()
    authorizer.add_user("user", "password-1", str(tmp_path), perm="elradfmwMT")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    server = ThreadedFTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"timeout": 0.05, "handle_exit": False})
    thread.start()
    yield FtpServer(port=server.address[1], root=tmp_path)
    server.close_all()
    thread.join()
