"""An output that can't be used, or a machine without an engine, is refused before anything starts."""

import os
from pathlib import Path

import pytest

from magpie_ray.errors import PreflightError, StorageError
from magpie_ray.preflight import checks
from magpie_ray.preflight.target import find_output
from magpie_ray.storage.storage import Storage
from tests.support.builds import config_of, memory_storage


def test_an_output_that_works_is_left_as_it_was_but_for_old_leftovers(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert checks.check_output(storage, single_writer=False) is storage
    assert storage.list_objects("") == []
    old = tmp_path / "_magpie" / "tmp" / "left-by-a-writer"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    checks.check_output(storage, single_writer=False)
    assert not old.exists()


class WithoutListing(Storage):
    """A store that may not be asked for leftovers."""

    def remove_leftovers(self) -> int:
        raise StorageError("may not list uploads")


class WithoutExclusiveCreation(Storage):
    """A store that creates an object twice."""

    def probe(self) -> bool:
        return False


def test_leftovers_that_can_not_be_removed_stop_nothing() -> None:
    checks.check_output(WithoutListing(memory_storage().url), single_writer=False)


def test_a_store_without_exclusive_creation_is_refused() -> None:
    refusal = r"does not support exclusive creation.*output\.single_writer: true.*never more than one run"
    with pytest.raises(PreflightError, match=refusal):
        checks.check_output(WithoutExclusiveCreation(memory_storage().url), single_writer=False)


def test_a_single_writer_may_use_a_store_without_exclusive_creation() -> None:
    storage = memory_storage()
    assert checks.check_output(storage, single_writer=True) is storage  # which has it
    alone = checks.check_output(WithoutExclusiveCreation(storage.url), single_writer=True)
    assert (alone.url, alone.exclusive) == (storage.url, False)


def test_a_place_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config = config_of(output={"path": str(tmp_path / "file")})
    with pytest.raises(PreflightError, match=r"file can't be used") as caught:
        checks.check_output(find_output(config, claim=False).storage, single_writer=True)
    assert caught.value.exit_code == 2


def test_an_output_that_other_processes_can_not_see_is_refused() -> None:
    with pytest.raises(PreflightError, match="which every process has for itself"):
        checks.check_output_is_shared(Storage("memory://rows"))


def test_a_folder_is_warned_of_where_nodes_must_share_it(caplog: pytest.LogCaptureFixture) -> None:
    checks.warn_of_local_output(Storage("/out"), nodes=3)
    assert "all 3 nodes of the cluster must share it" in caplog.text
    caplog.clear()
    checks.warn_of_local_output(Storage("/out"), nodes=1)
    checks.warn_of_local_output(Storage("s3://bucket/out"), nodes=3)
    assert not caplog.text


def test_a_relative_output_in_a_submitted_job_is_refused() -> None:
    submitted = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    for path in ("./out/demo", "out"):
        with pytest.raises(PreflightError, match=r"output\.path: got .*out.* that Ray deletes after"):
            checks.check_output_outlives_job(path, submitted)
        checks.check_output_outlives_job(path, {})
    for path in ("/data/out", "s3://bucket/out"):
        checks.check_output_outlives_job(path, submitted)


def test_an_engine_that_is_not_installed_is_told_before_anything_starts() -> None:
    with pytest.raises(PreflightError, match=r'pip install "magpie-ray\[gpu\]"'):
        checks.check_engine_is_installed(find=lambda name: None)
