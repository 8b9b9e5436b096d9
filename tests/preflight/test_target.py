"""The build at an output before a run, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from magpie_ray.config.schema import Config, load_config
from magpie_ray.dataset import build_record
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.errors import BuildMismatchError, PreflightError
from magpie_ray.preflight.build_spec import resolve_build
from magpie_ray.preflight.target import check_existing, open_build, read_existing
from magpie_ray.storage.storage import Storage
from tests.support.builds import DATED, commit, config_of, memory_storage, model_folder


def opened(config: Config, storage: Storage, grid: int = 4) -> BuildRecord:
    return build_record.open_build(storage, resolve_build(config).record(grid))


def test_the_same_config_resumes_and_rows_may_grow() -> None:
    storage, config = memory_storage(), config_of()
    record = opened(config, storage)
    commit(storage, record, 0, 4)
    grown = config_of(num_rows=14)
    committed = check_existing(resolve_build(grown, record), record, storage)
    assert [p.start for p in committed.pending] == [4, 8, 12]


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
        check_existing(resolve_build(other, record), record, storage)
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
    check_existing(resolve_build(other, record), record, storage)


def test_a_model_that_was_changed_in_its_folder_is_refused(tmp_path: Path) -> None:
    storage, name = memory_storage(), model_folder(tmp_path / "model", DATED)
    config = config_of(model={"name": name})
    record = opened(config, storage)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(BuildMismatchError, match=r"model\.commit"):
        check_existing(resolve_build(config, record), record, storage)


def test_fewer_rows_than_there_are_is_refused() -> None:
    storage, config = memory_storage(), config_of(num_rows=7)
    record = opened(config, storage)
    commit(storage, record, 0, 4)
    commit(storage, record, 4, 8)
    with pytest.raises(
        BuildMismatchError, match=r"num_rows: got 7, but .* up to 7 already.*Set num_rows to 8"
    ):
        check_existing(resolve_build(config, record), record, storage)


def test_files_that_do_not_belong_are_refused() -> None:
    storage, config = memory_storage(), config_of()
    record = opened(config, storage)
    storage.create("data/notes.txt", b"hello")
    with pytest.raises(PreflightError, match=r"data/notes\.txt"):
        check_existing(resolve_build(config, record), record, storage)


def test_files_without_a_build_are_refused_and_nothing_is_written() -> None:
    storage = memory_storage()
    storage.create("data/part-000000000000.parquet", b"rows of somebody")
    with pytest.raises(PreflightError, match=r"holds files, but there is no _magpie/build\.json"):
        read_existing(storage)
    assert [item.key for item in storage.list_objects("")] == ["data/part-000000000000.parquet"]


def test_a_build_without_rows_may_be_deleted_where_the_settings_were_wrong() -> None:
    storage, config = memory_storage(), config_of()
    record = opened(config, storage)
    other = config_of(seed=1)
    with pytest.raises(BuildMismatchError, match=r"there are no rows yet, so delete memory://.*/_magpie"):
        check_existing(resolve_build(other, record), record, storage)


def test_a_driver_that_comes_second_takes_the_grid_of_the_first_where_none_was_asked_for() -> None:
    storage = memory_storage()

    def opened(*keys: str) -> tuple[BuildRecord, bool]:
        config = load_config(None, ["engine.device=cpu", *keys])
        committed, is_new = open_build(resolve_build(config), storage, device="cpu", num_actors=1)
        return committed.build, is_new

    first, is_new = opened("num_rows=1000")
    assert is_new
    assert opened("num_rows=2000") == (first, False)
    with pytest.raises(BuildMismatchError, match=r"output\.rows_per_partition"):
        opened("num_rows=2000", "output.rows_per_partition=7")
    with pytest.raises(BuildMismatchError, match="seed: the build has 0, now 1"):
        opened("num_rows=2000", "seed=1")
