"""The build at an output before a run, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.config.loading import load_config
from magpie_ray.config.schema import Config
from magpie_ray.dataset import build_record
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.errors import BuildMismatchError, PreflightError
from magpie_ray.preflight.existing import read_existing
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.preflight.target import check_existing, open_build
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
    storage.create("data/part-000000000004.parquet", b"hello")
    with pytest.raises(PreflightError, match=r"data/part-000000000004\.parquet"):
        check_existing(resolve_build(config, record), record, storage)


def test_a_build_without_rows_may_be_deleted_where_the_settings_were_wrong() -> None:
    storage, config = memory_storage(), config_of()
    record = opened(config, storage)
    storage.create("data/.DS_Store", b"?")
    other = config_of(seed=1)
    with pytest.raises(BuildMismatchError, match=r"there are no rows yet, so delete memory://.*/_magpie"):
        check_existing(resolve_build(other, record), record, storage)


def test_a_driver_that_comes_second_takes_the_grid_of_the_first_where_none_was_asked_for() -> None:
    storage = memory_storage()

    def opened(*keys: str) -> tuple[BuildRecord, bool]:
        config = load_config(None, ["engine.device=cpu", "seed=0", *keys])
        _, committed, is_new = open_build(resolve_build(config), storage, device="cpu", num_actors=1)
        return committed.build, is_new

    first, is_new = opened("num_rows=1000")
    assert is_new
    assert opened("num_rows=2000") == (first, False)
    with pytest.raises(BuildMismatchError, match=r"output\.rows_per_partition"):
        opened("num_rows=2000", "output.rows_per_partition=7")
    with pytest.raises(BuildMismatchError, match="seed: the build has 0, now 1"):
        opened("num_rows=2000", "seed=1")


class ForgivingStorage(Storage):
    """As a store may be: a creation with the bytes that are there looks like the creator's own, repeated."""

    def create(self, key: str, data: bytes) -> None:
        if not self.exists(key) or self.read(key) != data:
            super().create(key, data)


def test_of_two_drivers_that_create_a_build_in_the_same_second_one_is_first() -> None:
    storage = ForgivingStorage(memory_storage().url)
    spec = resolve_build(config_of(seed=3))
    opened = [open_build(spec, storage, device="cpu", num_actors=1) for _ in range(2)]
    assert [is_new for _, _, is_new in opened] == [True, False]
    first, second = (committed.build for _, committed, _ in opened)
    assert first == second


def test_new_builds_of_one_config_draw_different_seeds_and_record_them() -> None:
    spec, seeds = resolve_build(config_of()), set()
    for _ in range(20):
        storage = memory_storage()
        opened, committed, is_new = open_build(spec, storage, device="cpu", num_actors=1)
        assert is_new
        assert committed.build.identity["seed"] == opened.config.seed
        assert resolve_build(config_of(), read_existing(storage)).config.seed == opened.config.seed
        seeds.add(opened.config.seed)
    assert len(seeds) == 20


def test_a_driver_that_comes_second_takes_what_the_first_has_drawn(tmp_path: Path) -> None:
    storage = memory_storage()
    config = config_of(model={"name": model_folder(tmp_path / "model", DATED)})
    # Both have looked at the empty output; midnight lies between them.
    first, second = resolve_build(config), resolve_build(config)
    yesterday = replace(first.chat_format, date="2026-11-29")
    first = replace(first, chat_format=yesterday)
    resumed = resolve_build(config, first.with_seed(41).record(4))
    opened, _, is_new = open_build(resumed, storage, device="cpu", num_actors=1)
    assert is_new
    joined, committed, is_new = open_build(second, storage, device="cpu", num_actors=3, new_seed=lambda: 42)
    assert not is_new
    assert joined.config.seed == 41
    assert joined.chat_format == opened.chat_format
    assert joined.record(committed.build.rows_per_partition).fingerprint == committed.build.fingerprint
