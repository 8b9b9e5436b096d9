import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from magpie_ray.storage.clients import fresh_file_system


class HandsOnItsArguments(MemoryFileSystem):
    """As sftp's client does: what it is given goes on to a library, which refuses what it does not know."""

    protocol = "handson"

    def __init__(self, **arguments: object) -> None:
        if unknown := set(arguments) - {"username"}:
            raise TypeError(f"connect() got an unexpected keyword argument {unknown.pop()!r}")
        super().__init__(**arguments)


class Listing(MemoryFileSystem):
    """A client that keeps listings as object stores' clients do."""

    protocol = "listing"
    cachable = True


@pytest.mark.parametrize("client", [HandsOnItsArguments, Listing])
def test_a_client_keeps_no_listings_and_gets_the_users_arguments_alone(
    client: type[MemoryFileSystem],
) -> None:
    fsspec.register_implementation(client.protocol, client, clobber=True)
    options = {"username": "anna"} if client is HandsOnItsArguments else {}
    fs, root = fresh_file_system(f"{client.protocol}://folder/x", options)
    assert root.endswith("/folder/x")
    fs.dircache["/folder"] = [{"name": "/folder/old"}]
    assert "/folder" not in fs.dircache
    assert fresh_file_system(f"{client.protocol}://folder/x", options)[0] is not fs
