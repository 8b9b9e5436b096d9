"""Files are read by ranges, by several threads at once, and a failure of the store is kept."""

import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.curation.table_files import TableFile, TableFiles
from magpie_ray.errors import StorageError

DATA = bytes(range(256)) * 4096  # 1 MiB


def files_of(data: bytes = DATA) -> TableFiles:
    file = TableFile(name="s3://bucket/x", size=len(data), read_range=lambda start, stop: data[start:stop])
    return TableFiles({"t/0.parquet": file})


@given(
    st.lists(
        st.tuples(st.integers(0, len(DATA) + 9), st.sampled_from([0, 1, 7, 5000, 300_000, -1])), max_size=8
    )
)
def test_a_file_is_read_as_if_it_were_in_memory(reads: list[tuple[int, int]]) -> None:
    opened, memory = files_of().open("source://t/0.parquet"), io.BytesIO(DATA)
    for position, size in reads:
        assert opened.seek(position) == memory.seek(position)
        assert opened.read(size) == memory.read(size)
        assert opened.seek(-1, io.SEEK_CUR) == memory.seek(-1, io.SEEK_CUR) if memory.tell() else True
    assert opened.seek(-5, io.SEEK_END) == opened.tell() == len(DATA) - 5
    assert opened.read() == DATA[-5:]


def test_threads_that_share_a_file_do_not_move_each_other() -> None:
    """DuckDB reads ahead in threads of its own: a common position mixed the columns up."""
    opened = files_of().open("source://t/0.parquet")

    def read(start: int) -> bool:
        for position in range(start, len(DATA) - 64, 4096):
            opened.seek(position)
            if opened.read(64) != DATA[position : position + 64]:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_there_are_no_files_but_those_of_the_tables() -> None:
    files = files_of()
    assert files.exists("source://t/0.parquet")
    assert not files.exists("/etc/hosts")
    assert files.glob("source://t/*.parquet") == []
    with pytest.raises(FileNotFoundError):
        files.open("/etc/hosts")


def test_a_failure_of_the_store_is_kept() -> None:
    def read_range(start: int, stop: int) -> bytes:
        raise StorageError(f"no answer for {start}..{stop}")

    files = TableFiles({"t/0.parquet": TableFile(name="x", size=10, read_range=read_range)})
    with pytest.raises(StorageError):
        files.open("source://t/0.parquet").read(4)
    assert isinstance(files.failure, StorageError)


def test_messages_have_the_names_that_users_know() -> None:
    assert files_of().with_names('can\'t read "source://t/0.parquet"') == 'can\'t read "s3://bucket/x"'
