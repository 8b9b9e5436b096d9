"""What a worker says of an output that its node does not see, or can't write to."""

from dataclasses import replace
from pathlib import Path

import pytest

from magpie_ray.config.loading import load_config
from magpie_ray.dataset.build_record import open_build
from magpie_ray.errors import PreflightError, StorageError
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.storage.storage import Storage
from magpie_ray.worker.output_check import check_output
from magpie_ray.worker.spec import WorkerSpec


def spec_of(output: Path, *, storage: Storage | None = None, begun: bool = True) -> WorkerSpec:
    build_spec = resolve_build(load_config(None, ["num_rows=10", "seed=1", f"output.path={output}"]))
    record = build_spec.record(5)
    if begun:
        open_build(Storage(str(output)), record)
    return WorkerSpec(
        build_spec=build_spec,
        storage=storage or Storage(str(output)),
        fingerprint=record.fingerprint,
        run=1,
        device="cpu",
    )


def test_an_output_that_the_node_shares_is_left_as_it_is(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    before = Storage(str(tmp_path)).list_objects("")
    check_output(spec, host="n1")
    assert Storage(str(tmp_path)).list_objects("") == before


def test_a_folder_that_is_not_shared_is_told_with_the_host_and_what_was_looked_for(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "elsewhere", begun=False)
    with pytest.raises(
        PreflightError, match=r"n7 looked for \S+build\.json.*sees nothing else.*shared folder"
    ):
        check_output(spec, host="n7")


def test_another_folder_under_the_same_path_is_told_with_both_fingerprints(tmp_path: Path) -> None:
    spec = replace(spec_of(tmp_path), fingerprint="0" * 64)
    with pytest.raises(PreflightError, match=r"n7 sees another build.*that of this run 000000000000…"):
        check_output(spec, host="n7")


def test_a_build_record_that_can_not_be_read_is_no_fault_of_the_build(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    (tmp_path / "_magpie" / "build.json").write_text("{")
    with pytest.raises(PreflightError, match="n7 can't read"):
        check_output(spec, host="n7")


class NoRole(Storage):
    """Refuses what its name says."""

    refused = "read"

    def _refuse(self, what: str) -> None:
        if what == self.refused:
            raise StorageError(f"Could not {what}: AccessDenied")

    def read(self, key: str) -> bytes:
        self._refuse("read")
        return super().read(key)

    def create(self, key: str, data: bytes) -> None:
        self._refuse("create")
        super().create(key, data)


@pytest.mark.parametrize(
    ("refused", "told"), [("read", "n7 can't read"), ("create", "n7 sees the build, but can't write")]
)
def test_a_node_without_the_role_is_told(tmp_path: Path, refused: str, told: str) -> None:
    storage = NoRole(str(tmp_path))
    storage.refused = refused
    spec = spec_of(tmp_path, storage=storage)
    with pytest.raises(PreflightError, match=rf"{told}.*AccessDenied.*its role or credentials"):
        check_output(spec, host="n7")


def test_rows_that_are_thrown_away_need_no_build(tmp_path: Path) -> None:
    check_output(replace(spec_of(tmp_path, begun=False), fingerprint=""), host="n1")
