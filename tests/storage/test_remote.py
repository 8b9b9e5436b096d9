"""S3 over HTTP: conditional creation under faults, uploads in parts, and what they leave behind."""

import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from typing import Literal

import pytest
from s3fs import S3FileSystem

from magpie_ray.errors import AlreadyExistsError
from magpie_ray.storage.remote import RemoteStore, modified_at
from magpie_ray.storage.storage import Storage
from tests.storage.places import PART, begin_upload, keys, on_s3, open_uploads, winners
from tests.support.s3_server import FaultProxy, S3Server


@pytest.mark.parametrize(
    ("info", "modified"),
    [
        ({"LastModified": datetime(2026, 1, 1, tzinfo=UTC)}, 1767225600),
        ({"last_modified": datetime(2026, 1, 1)}, 1767225600),
        ({"updated": "2026-01-01T00:00:00.000Z"}, 1767225600),
        ({"mtime": 1767225600.5}, 1767225600.5),
        ({"mtime": "yesterday"}, None),
        ({}, None),
    ],
)
def test_the_time_of_a_write_is_read_as_file_systems_tell_it(
    info: dict[str, object], modified: float | None
) -> None:
    assert modified_at(info) == modified


def test_one_of_four_racing_clients_wins_on_s3(s3: S3Server) -> None:
    url = on_s3(s3).url
    clients = [Storage(url, s3.storage_options) for _ in range(4)]
    won = winners(4, lambda writer: clients[writer].create("data/a", str(writer).encode()))
    assert [str(writer).encode() for writer in won] == [Storage(url, s3.storage_options).read("data/a")]


def test_a_put_whose_answer_is_lost_succeeds(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    proxy.spoil("PUT", "lost_reply", "lost_reply")
    storage.create("data/a", b"mine")
    assert (proxy.unused, storage.read("data/a")) == (0, b"mine")


def test_an_object_that_came_between_two_tries_is_not_taken_for_ours(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    Storage(storage.url, proxy.server.storage_options).create("data/a", b"them")
    proxy.spoil("PUT", "reset")
    with pytest.raises(AlreadyExistsError):
        storage.create("data/a", b"mine")
    assert storage.read("data/a") == b"them"


def test_a_store_that_answers_412_without_the_name_of_the_condition_is_understood(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    proxy.spoil("PUT", "412 PreconditionFailed")
    with pytest.raises(AlreadyExistsError):
        storage.create("data/a", b"x")


def test_a_body_that_is_cut_is_read_again(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    storage.create("data/a", b"x" * 10_000)
    proxy.spoil("GET", "cut_body", "cut_body")
    assert storage.read_tail("data/a", 8_000) == b"x" * 8_000
    assert proxy.unused == 0


def test_a_body_with_a_flipped_bit_is_read_again(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    storage.create("data/a", b"x" * 10_000)
    proxy.spoil("GET", "flipped_body", "flipped_body")
    assert (storage.read("data/a"), proxy.unused) == (b"x" * 10_000, 0)


def test_reading_takes_one_request(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    storage.create("data/a", b"x" * 10_000)
    for read in (storage.read, lambda key: storage.read_tail(key, 100)):
        before = len(proxy.requests)
        read("data/a")
        assert [request.split()[0] for request in proxy.requests[before:]] == ["GET"]


def test_the_time_of_s3_is_that_of_its_answers(s3: S3Server) -> None:
    storage = on_s3(s3)
    storage.create("data/a", b"x")
    [item] = storage.list_objects("data")
    now = storage.now()
    assert now == int(now), "HTTP tells whole seconds"
    assert item.modified is not None
    assert abs(now - item.modified) < 60


# ---- uploads in parts

BIG = 2 * PART + 1  # three parts


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_s3_without_conditional_writes_serves_a_single_writer(
    s3: S3Server, conditions: Literal["ignored", "refused"]
) -> None:
    with FaultProxy(s3, conditions=conditions) as proxy:
        storage = on_s3(proxy.server, part_bytes=PART)
        assert (storage.probe(), keys(storage)) == (False, [])
        alone = pickle.loads(pickle.dumps(storage.for_single_writer())).retrying_for(60)
        for data in (b"mine", b"m" * BIG):
            key = f"data/{len(data)}"
            whole = len(data) < BIG
            proxy.spoil("PUT" if whole else "POST", "lost_reply", part="" if whole else "uploadId")
            alone.create(key, data)
            assert (proxy.unused, alone.read(key)) == (0, data)
            with pytest.raises(AlreadyExistsError):
                alone.create(key, b"theirs" * len(data))
            assert alone.read(key) == data


def test_an_upload_in_parts_is_exclusive_too(s3: S3Server) -> None:
    storage = on_s3(s3, part_bytes=PART)
    won = winners(3, lambda writer: storage.create("data/big", bytes([writer]) * BIG))
    assert len(won) == 1
    with pytest.raises(AlreadyExistsError):
        storage.create("data/big", b"z" * BIG)
    assert storage.read("data/big") == bytes([won[0]]) * BIG
    assert open_uploads(s3, storage) == 0


@pytest.mark.parametrize("fault", ["lost_reply", "409 ConditionalRequestConflict"])
def test_an_upload_in_parts_survives_faults_at_its_end(proxy: FaultProxy, fault: str) -> None:
    storage = on_s3(proxy.server, part_bytes=PART)
    data = os.urandom(BIG)
    proxy.spoil("POST", fault, part="uploadId")
    storage.create("data/big", data)
    assert proxy.unused == 0
    if fault == "lost_reply":  # what is there is found before it is sent again
        assert sum("partNumber" in request for request in proxy.requests) == 3
    assert storage.read("data/big") == data
    assert open_uploads(proxy.server, storage) == 0


def test_an_upload_left_behind_goes_once_it_is_old_or_its_object_is_there(s3: S3Server) -> None:
    storage = on_s3(s3)
    storage.create("data/there", b"x")
    for key in ("data/there", "data/there", "data/missing"):
        begin_upload(s3, storage, key)
    # This server dates every upload to 2010.
    patient = RemoteStore("s3", storage.url, s3.storage_options, exclusive=True, leftover_seconds=1e10)
    assert (patient.remove_leftovers(), open_uploads(s3, storage)) == (2, 1)
    assert (patient.remove_leftovers(), open_uploads(s3, storage)) == (0, 1)
    assert (storage.remove_leftovers(), open_uploads(s3, storage)) == (1, 0)


def test_uploads_of_others_below_the_same_prefix_are_left_alone(s3: S3Server) -> None:
    storage = on_s3(s3)
    for key in ("another-build/data/a", "database/a"):
        begin_upload(s3, storage, key)
    assert (storage.remove_leftovers(), open_uploads(s3, storage)) == (0, 2)


def test_all_pages_of_uploads_are_looked_through(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = on_s3(s3)
    for count in range(5):
        begin_upload(s3, storage, f"data/{count}")
    call = S3FileSystem.call_s3

    def two_a_page(fs: S3FileSystem, method: str, **arguments: str) -> dict[str, object]:
        """This server knows no pages."""
        after = (arguments.pop("KeyMarker", ""), arguments.pop("UploadIdMarker", ""))
        uploads = call(fs, method, **arguments).get("Uploads", [])
        left = sorted((u["Key"], u["UploadId"]) for u in uploads if (u["Key"], u["UploadId"]) > after)
        page = [upload for upload in uploads if (upload["Key"], upload["UploadId"]) in left[:2]]
        last = left[:2][-1] if left else ("", "")
        more = {"IsTruncated": len(left) > 2, "NextKeyMarker": last[0], "NextUploadIdMarker": last[1]}
        return {"Uploads": page, **more}

    monkeypatch.setattr(S3FileSystem, "call_s3", two_a_page)
    assert (storage.remove_leftovers(), open_uploads(s3, storage)) == (5, 0)


def test_an_upload_that_is_aborted_by_mistake_begins_again(proxy: FaultProxy) -> None:
    """A clock that jumped, or two runs that clean at once: the writer loses its upload, never its object."""
    storage = on_s3(proxy.server, part_bytes=PART)
    data = os.urandom(BIG)
    proxy.spoil("PUT", "404 NoSuchUpload", part="partNumber=2")
    proxy.spoil("POST", "404 NoSuchUpload", part="uploadId")
    storage.create("data/big", data)
    assert (proxy.unused, storage.read("data/big")) == (0, data)


UPLOADER = """
import os, sys
from magpie_ray.storage import Storage

part_bytes = int(sys.argv[2])
Storage(sys.argv[1], part_bytes=part_bytes).create("data/big", os.urandom(3 * part_bytes))
"""


def test_an_uploader_killed_between_its_parts_leaves_nothing_to_see_and_is_cleaned_up_after(
    proxy: FaultProxy,
) -> None:
    storage = on_s3(proxy.server)
    proxy.spoil("PUT", "stall", part="partNumber=2")
    command = [sys.executable, "-c", UPLOADER, storage.url, str(PART)]
    with subprocess.Popen(command, env=os.environ | proxy.server.env) as process:
        proxy.wait_for("stall")
        process.kill()
    proxy.calm()
    assert (keys(storage), open_uploads(proxy.server, storage)) == ([], 1)
    storage.create("data/big", b"by its replacement")
    assert (storage.remove_leftovers(), open_uploads(proxy.server, storage)) == (1, 0)
