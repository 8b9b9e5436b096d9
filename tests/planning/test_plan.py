"""What `plan` says, as plain fields."""

import json
from pathlib import Path

import pytest

from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from magpie_ray.dataset import build_record
from magpie_ray.errors import ConfigError, PreflightError
from magpie_ray.planning.forecast import CostInputs
from magpie_ray.planning.gpus import find_gpu
from magpie_ray.planning.plan import make_plan
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.storage.storage import Storage
from tests.planning.test_estimate import SAMPLE
from tests.support.builds import commit, config_of, memory_storage
from tests.support.ports import free_port


def test_the_plan_of_a_new_build_says_what_would_run() -> None:
    storage = memory_storage()
    found = make_plan(
        config_of(num_rows=105, n_turns=3, output={"path": storage.url, "rows_per_partition": 50})
    )
    assert (found["exists"], found["rows_committed"], found["rows_pending"]) == (False, 0, 105)
    assert (found["partitions_pending"], found["messages_per_row"]) == (3, 6)
    assert found["shards"] == [{"partitions": 3, "rows": 105}]
    assert MULTI_TURN_PROMPT in found["first_prompt"]
    assert found["first_prompt_ids"][0] == 1
    assumed = [text.split(" is ")[0] for text in found["assumptions"]]
    assert assumed == ["cluster.num_actors", "engine.device", "seed"]
    assert found["fingerprint"] is None
    assert storage.list_objects("") == []
    json.dumps(found)


@pytest.mark.parametrize(("rows_per_partition", "warned"), [(1, True), (2, False)])
def test_a_plan_warns_of_more_files_than_a_folder_of_the_hub_holds(
    rows_per_partition: int, warned: bool
) -> None:
    output = {"path": memory_storage().url, "rows_per_partition": rows_per_partition}
    found = make_plan(config_of(num_rows=18_000, output=output))
    many = [text for text in found["warnings"] if text.startswith("18,000 files: `push` puts them in sub-")]
    assert bool(many) == warned


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """An S3 path at a port where nothing listens, which is tried for a second."""
    for module in ("preflight.target", "dataset.schedule"):
        monkeypatch.setattr(f"magpie_ray.{module}.READ_SECONDS", 1.0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    return "s3://no-such-bucket/build"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "keys"), [("", {}), ("/{build_id}", {}), ("/{date}", {"build_id": "nightly"})]
)
def test_a_plan_needs_no_store_and_says_what_it_did_not_look_at(
    nowhere: str, name: str, keys: dict[str, str]
) -> None:
    found = make_plan(config_of(num_rows=105, output={"path": nowhere + name, **keys}))
    assert (found["exists"], found["rows_pending"]) == (False, 105)
    assert found["warnings"][0].startswith("not looked at, so this is the plan of a new build: ")
    assert nowhere in found["warnings"][0]


@pytest.mark.slow
def test_a_config_that_is_wrong_is_refused_where_the_store_does_not_answer(nowhere: str) -> None:
    config = config_of(num_rows=1, model={"chat_format": "tests.nothing:here"}, output={"path": nowhere})
    with pytest.raises(ConfigError, match=r"model\.chat_format: got 'tests\.nothing:here'"):
        make_plan(config)


def test_more_files_than_a_driver_can_keep_track_of_are_refused() -> None:
    """Before any list of them: 900,000,000 rows, one a file, took all memory there was."""
    config = config_of(num_rows=6_000_000, output={"path": memory_storage().url, "rows_per_partition": 1})
    with pytest.raises(ConfigError, match=r"output\.rows_per_partition: 1 makes 6,000,000.* to 2 or more"):
        make_plan(config)


def test_the_plan_of_a_build_that_is_there_says_what_is_left() -> None:
    storage = memory_storage()
    config = config_of(num_rows=20, output={"path": storage.url}, cluster={"num_actors": 2})
    record = build_record.open_build(storage, resolve_build(config).record(4))
    commit(storage, record, 0, 4)
    commit(storage, record, 4, 6)
    found = make_plan(config)
    assert found["exists"]
    assert found["fingerprint"] == record.fingerprint
    assert (found["rows_committed"], found["rows_pending"], found["rows_per_partition"]) == (6, 14, 4)
    assert [shard["rows"] for shard in found["shards"]] == [6, 8]


def test_a_plan_of_an_output_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PreflightError, match="Could not read") as caught:
        make_plan(config_of(output={"path": str(tmp_path / "file")}))
    assert caught.value.exit_code == 2


def test_a_plan_of_a_place_with_files_of_no_build_or_a_damaged_one_is_refused() -> None:
    storage = memory_storage()
    storage.create("data/part-000000000000.parquet", b"rows of somebody")
    with pytest.raises(PreflightError, match=r"holds files, but there is no _magpie/build\.json"):
        make_plan(config_of(output={"path": storage.url}))
    damaged = memory_storage()
    damaged.create("_magpie/build.json", b"{")
    with pytest.raises(PreflightError, match=r"build\.json"):
        make_plan(config_of(output={"path": damaged.url}))


def test_a_plan_gives_up_soon_on_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(build_record, "read_build", lambda storage: seen.append(storage.retry_seconds))
    make_plan(config_of(output={"path": memory_storage().url}))
    assert seen == [30.0]
    assert Storage("memory://x").retry_seconds > 300.0


def test_the_plan_of_a_build_on_a_schedule_is_that_of_its_next_tick() -> None:
    storage = memory_storage()
    found = make_plan(config_of(output={"path": f"{storage.url}/{{datetime}}"}))
    assert found["output"].startswith(f"{storage.url}/20")
    assert found["config"]["output"]["path"] == found["output"]
    assert found["config"]["seed"] == "auto"
    assert storage.list_objects("") == []


def test_a_sample_says_how_many_actors_and_what_device_there_are() -> None:
    config = config_of(num_rows=1000, output={"path": memory_storage().url, "rows_per_partition": 50})
    found = make_plan(config, CostInputs(sample=SAMPLE))
    assert (found["num_actors"], found["device"], found["sample"]["rows"]) == (2, "cuda", 1000)
    assert found["estimate"]["tokens"]["low"] == 50_000
    json.dumps(found)


def test_the_plan_of_a_complete_build_takes_nothing_more() -> None:
    storage = memory_storage()
    config = config_of(num_rows=4, output={"path": storage.url})
    record = build_record.open_build(storage, resolve_build(config).record(4))
    commit(storage, record, 0, 4)
    for inputs in (
        CostInputs(gpu=find_gpu("H200")),
        CostInputs(tokens_per_second=10.0),
        CostInputs(sample=SAMPLE),
    ):
        found = make_plan(config, inputs)
        assert found["rows_pending"] == 0
        assert found["estimate"]["wall_seconds"] == {"low": 0.0, "high": 0.0}
