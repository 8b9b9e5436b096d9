"""Builds and configs of earlier versions are read, continued and fingerprinted as they were then.

tests/support/earlier_build was written by version 0.1.0 (48 rows of the bundled model), and
earlier_fingerprints.json by the same version for eight configs. Neither is ever made anew: a difference is a
break with the builds of users.
"""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from magpie_ray.config.loading import load_config
from magpie_ray.config.schema import Config
from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.actor_history import read_actor_history
from magpie_ray.dataset.verify import verify
from magpie_ray.monitoring import status
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.preflight.target import check_existing
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition
from tests.support.paths import ROOT

EARLIER_BUILD = ROOT / "tests/support/earlier_build"
FINGERPRINTS = json.loads((ROOT / "tests/support/earlier_fingerprints.json").read_text())


def earlier_config(folder: Path, *overrides: str) -> Config:
    path = folder / "earlier.yaml"
    path.write_text(yaml.safe_dump(FINGERPRINTS["config"]))
    return load_config(path, overrides)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A copy of the earlier build."""
    shutil.copytree(EARLIER_BUILD, tmp_path / "build")
    return Storage(str(tmp_path / "build"))


@pytest.mark.parametrize("case", FINGERPRINTS["cases"])
def test_the_fingerprint_of_a_config_is_what_it_was(case: str, tmp_path: Path) -> None:
    known = FINGERPRINTS["cases"][case]
    # A config without a seed had 0, which its build.json says.
    spec = resolve_build(earlier_config(tmp_path, "seed=0", *known["overrides"]))
    assert spec.record(FINGERPRINTS["rows_per_partition"]).fingerprint == known["fingerprint"]


def test_an_earlier_build_is_complete_and_consistent(storage: Storage) -> None:
    found = verify(storage)
    assert found.problems == ()
    assert found.num_rows == 48


def test_the_records_of_an_earlier_build_are_read(storage: Storage) -> None:
    record = build_record.require_build(storage)
    assert record.rows_per_partition == 24
    [run] = run_records.read_runs(storage)
    assert (run.outcome, run.num_rows) == ("done", 48)
    lives = read_actor_history(storage, 1)
    assert lives is not None
    assert [life.rows for life in lives.lives] == [48]
    assert [found.rows for found in manifest.read_committed(storage, record)] == [24, 24]
    stands = status.read_status(storage)
    assert stands.state == "complete"
    beat = run_records.read_heartbeat(storage, 1)
    assert beat is not None
    assert beat["num_rows"] == 48


def test_an_earlier_build_goes_on_where_it_stands(storage: Storage, tmp_path: Path) -> None:
    existing = build_record.require_build(storage)
    config = earlier_config(
        tmp_path,
        "num_rows=96",
        f"output.path={storage.url}",
        "system_prompt={geography: ['You are a helpful assistant for geography.', 2],"
        " animals: ['You are a helpful assistant for animals.', 1]}",
        "sampling.user=[{temperature: 1.0, weight: 2}, {temperature: 0.8, weight: 1}]",
    )
    spec = resolve_build(config, existing)
    committed = check_existing(spec, existing, storage)
    assert list(committed.pending) == [Partition(start=48, stop=72), Partition(start=72, stop=96)]
