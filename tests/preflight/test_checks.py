"""What is wrong with an output, what it holds or where engines are to run is refused before they start."""

import os
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.config.schema import Config
from magpie_ray.dataset import build_record
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.errors import BuildMismatchError, ConfigError, PreflightError, StorageError
from magpie_ray.preflight import checks
from magpie_ray.preflight.build_spec import resolve_build
from magpie_ray.storage.storage import Storage
from tests.support.builds import DATED, commit, config_of, memory_storage, model_folder


def opened(config: Config, storage: Storage, grid: int = 4) -> BuildRecord:
    return build_record.open_build(storage, resolve_build(config).record(grid))


# ---- resuming


def test_the_same_config_resumes_and_rows_may_grow() -> None:
    storage, config = memory_storage(), config_of()
    record = opened(config, storage)
    commit(storage, record, 0, 4)
    grown = config_of(num_rows=14)
    committed = checks.check_existing(resolve_build(grown, record), record, storage)
    assert [p.start for p in committed.pending(14)] == [4, 8, 12]


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (
            {"sampling": {"user": {"temperature": 0.7}}},
            "sampling.user.temperature: the build has 1.0, now 0.7",
        ),
        ({"n_turns": 2}, "n_turns: the build has 1, now 2"),
        ({"system_prompt": "Be kind."}, "system_prompt: the build has []"),
        ({"output": {"rows_per_partition": 5}}, "output.rows_per_partition: the build has 4, now 5"),
    ],
)
def test_another_config_is_refused_naming_the_key(keys: dict[str, Any], named: str) -> None:
    storage = memory_storage()
    record = opened(config_of(), storage)
    other = config_of(**keys)
    with pytest.raises(BuildMismatchError) as caught:
        checks.check_existing(resolve_build(other, record), record, storage)
    assert named in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("rows_per_partition", ["auto", 4])
def test_what_decides_no_row_may_change(rows_per_partition: Any) -> None:
    storage = memory_storage()
    record = opened(config_of(), storage)
    other = config_of(
        cluster={"num_actors": 7},
        rounds={"cohort_size": 32},
        engine={"device": "cpu", "max_num_seqs": 8},
        output={"rows_per_partition": rows_per_partition, "compression": "snappy"},
    )
    checks.check_existing(resolve_build(other, record), record, storage)


def test_a_model_that_was_changed_in_its_folder_is_refused(tmp_path: Path) -> None:
    storage, name = memory_storage(), model_folder(tmp_path / "model", DATED)
    config = config_of(model={"name": name})
    record = opened(config, storage)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(BuildMismatchError, match=r"model\.commit"):
        checks.check_existing(resolve_build(config, record), record, storage)


def test_fewer_rows_than_there_are_is_refused() -> None:
    storage, config = memory_storage(), config_of(num_rows=7)
    record = opened(config, storage)
    commit(storage, record, 0, 4)
    commit(storage, record, 4, 8)
    with pytest.raises(
        BuildMismatchError, match=r"num_rows: got 7, but .* up to 7 already.*Set num_rows to 8"
    ):
        checks.check_existing(resolve_build(config, record), record, storage)


def test_files_that_do_not_belong_are_refused() -> None:
    storage, config = memory_storage(), config_of()
    record = opened(config, storage)
    storage.create("data/notes.txt", b"hello")
    with pytest.raises(PreflightError, match=r"data/notes\.txt"):
        checks.check_existing(resolve_build(config, record), record, storage)


# ---- the output


def test_an_output_that_works_is_left_as_it_was_but_for_old_leftovers(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert checks.check_output(storage, single_writer=False) is storage
    assert storage.list_objects("") == []
    old = tmp_path / "_magpie" / "tmp" / "left-by-a-writer"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    checks.check_output(storage, single_writer=False)
    assert not old.exists()


def test_leftovers_that_can_not_be_removed_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Storage) -> int:
        raise StorageError("may not list uploads")

    monkeypatch.setattr(Storage, "remove_leftovers", refused)
    checks.check_output(memory_storage(), single_writer=False)


def test_a_store_without_exclusive_creation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Storage, "probe", lambda _: False)
    refusal = r"does not support exclusive creation.*output\.single_writer: true.*never more than one run"
    with pytest.raises(PreflightError, match=refusal):
        checks.check_output(memory_storage(), single_writer=False)


def test_a_single_writer_may_use_a_store_without_exclusive_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = memory_storage()
    assert checks.check_output(storage, single_writer=True) is storage  # which has it
    monkeypatch.setattr(Storage, "probe", lambda _: False)
    alone = checks.check_output(storage, single_writer=True)
    assert (alone.url, alone.exclusive) == (storage.url, False)


def test_a_place_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config = config_of(output={"path": str(tmp_path / "file")})
    with pytest.raises(PreflightError, match=r"file can't be used") as caught:
        checks.check_output(checks.open_output(config), single_writer=True)
    assert caught.value.exit_code == 2


def test_an_engine_of_several_devices_needs_gpus() -> None:
    build_spec = resolve_build(config_of(engine={"tensor_parallel_size": 2}))
    checks.check_engine_device(build_spec, device="cuda")
    with pytest.raises(ConfigError, match="tensor_parallel_size"):
        checks.check_engine_device(build_spec, device="cpu")


# ---- the grid and the record


def test_the_grid_is_what_was_asked_for_or_chosen_from_what_a_row_can_take() -> None:
    explicit = resolve_build(config_of(output={"rows_per_partition": 50}))
    assert checks.choose_grid(explicit, num_actors=3, device="cuda") == 50
    many = {"num_rows": 10_000_000}
    grids = [
        checks.choose_grid(resolve_build(config_of(**many, **keys)), num_actors=1, device="cuda")
        for keys in ({"n_turns": 3}, {"n_turns": 1}, {"only_instruction": True})
    ]
    assert grids == sorted(grids)
    assert checks.choose_grid(resolve_build(config_of(num_rows=80)), num_actors=2, device="cuda") == 5


def test_files_without_a_build_are_refused_and_nothing_is_written() -> None:
    storage = memory_storage()
    storage.create("data/part-000000000000.parquet", b"rows of somebody")
    with pytest.raises(PreflightError, match=r"holds files, but there is no _magpie/build\.json"):
        checks.read_existing(storage)
    assert [item.key for item in storage.list_objects("")] == ["data/part-000000000000.parquet"]


def test_an_output_that_other_processes_can_not_see_is_refused() -> None:
    with pytest.raises(PreflightError, match="which every process has for itself"):
        checks.check_output_is_shared(Storage("memory://rows"))


def test_a_folder_is_warned_of_where_nodes_must_share_it_and_where_it_goes_with_the_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1/out"
    checks.warn_of_local_output(resolve_build(config_of(output={"path": "./out"})), Storage(job), nodes=3)
    assert "all 3 nodes of the cluster must share it" in caplog.text
    assert "temporary working directory" in caplog.text
    caplog.clear()
    checks.warn_of_local_output(resolve_build(config_of(output={"path": "/out"})), Storage("/out"), nodes=1)
    checks.warn_of_local_output(resolve_build(config_of()), Storage("s3://bucket/out"), nodes=3)
    assert not caplog.text


def test_a_build_without_rows_may_be_deleted_where_the_settings_were_wrong() -> None:
    storage, config = memory_storage(), config_of()
    record = opened(config, storage)
    other = config_of(seed=1)
    with pytest.raises(BuildMismatchError, match=r"there are no rows yet, so delete memory://.*/_magpie"):
        checks.check_existing(resolve_build(other, record), record, storage)
