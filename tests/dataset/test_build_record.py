"""A build has one identity, and every run of it a number of its own."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from magpie_ray import draws
from magpie_ray.config.identity import without_neutral
from magpie_ray.counters import EngineStats
from magpie_ray.dataset import build_record, run_records
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.layout import BUILD_KEY
from magpie_ray.errors import BuildMismatchError, BuildNotFoundError, CorruptBuildError, PreflightError
from magpie_ray.storage.storage import Storage
from tests.support.builds import build_of, config_of, memory_storage


def rewrite(storage: Storage, key: str, **fields: object) -> None:
    """Edit a record as somebody with an editor would; None removes a field."""
    kept = json.loads(storage.read(key)) | fields
    storage.replace(key, json.dumps({k: v for k, v in kept.items() if v is not None}).encode())


def test_there_is_no_build_until_one_is_opened() -> None:
    storage = memory_storage()
    assert build_record.read_build(storage) is None
    wanted = build_of()
    assert build_record.open_build(storage, wanted) == wanted
    assert build_record.read_build(storage) == wanted
    assert json.loads(storage.read(BUILD_KEY))["fingerprint"] == wanted.fingerprint


def test_the_fingerprint_ignores_the_order_of_keys_and_sees_every_value() -> None:
    identity = {"a": 1, "b": {"x": [1, 2], "y": None}}
    assert build_record.fingerprint_of(identity) == build_record.fingerprint_of(
        {"b": {"y": None, "x": [1, 2]}, "a": 1}
    )
    assert build_record.fingerprint_of(identity) != build_record.fingerprint_of({**identity, "a": 1.5})
    assert build_record.fingerprint_of(identity) != build_record.fingerprint_of(
        {"a": 1, "b": {"x": [2, 1], "y": None}}
    )
    assert len(build_record.fingerprint_of({})) == 64


def test_who_comes_second_joins_the_build_that_is_there() -> None:
    storage = memory_storage()
    first = build_record.open_build(storage, build_of())
    before = storage.read(BUILD_KEY)
    later = BuildRecord(**{f: getattr(first, f) for f in BuildRecord.__slots__} | {"created": "later"})
    assert build_record.open_build(storage, later).created == first.created
    assert storage.read(BUILD_KEY) == before


def test_of_racing_builds_with_other_settings_one_is_made_and_the_others_are_refused() -> None:
    storage, barrier = memory_storage(), Barrier(8)

    def attempt(number: int) -> str:
        wanted = build_of(seed=number)
        barrier.wait()
        try:
            return build_record.open_build(storage, wanted).fingerprint
        except BuildMismatchError:
            return "refused"

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(attempt, range(8)))
    found = build_record.read_build(storage)
    assert found is not None
    assert outcomes == sorted([found.fingerprint, *["refused"] * 7])


def test_who_names_the_folder_of_a_schedule_is_told_where_its_builds_are() -> None:
    storage = memory_storage()
    with pytest.raises(BuildNotFoundError, match=r"holds no build: there is no .*build\.json$"):
        build_record.require_build(storage)
    storage.replace("latest.json", b"{}")
    with pytest.raises(BuildNotFoundError, match=r"name one, or .*/latest, the newest$"):
        build_record.require_build(storage)


def test_who_names_a_file_is_told_that_a_build_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").touch()
    with pytest.raises(BuildNotFoundError, match=r"rows\.parquet is a file, and a build is a folder"):
        build_record.require_build(Storage(str(tmp_path / "rows.parquet")))


def test_a_mismatch_names_each_key_with_both_values() -> None:
    storage = memory_storage()
    build_record.open_build(
        storage, build_of(4, seed=1, same=2, gone="x", empty=None, **{"chat_format.x": 1})
    )
    with pytest.raises(BuildMismatchError) as caught:
        build_record.open_build(
            storage, build_of(8, **{"seed": 1.0, "same": 2, "sampling.user.temperature": 0.7})
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{storage.url} holds a build made with other settings:"
    assert lines[1:-1] == [
        "  empty: the build has null, now (not set)",
        '  gone: the build has "x", now (not set)',
        "  output.rows_per_partition: the build has 4, now 8",
        "  sampling.user.temperature: the build has 1.0, now 0.7",
        "  seed: the build has 1, now 1.0",
        "  chat_format.x: the build has 1, now (not set)",  # it follows from the others
    ]
    assert "choose another output.path" in lines[-1]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", [{"kind": "dedupe"}, {"job": "answer"}])
def test_the_output_of_another_command_is_refused_in_one_line(kind: dict[str, object]) -> None:
    storage = memory_storage()
    build_record.open_build(storage, build_of(seed=1))
    with pytest.raises(BuildMismatchError) as caught:
        build_record.open_build(storage, build_of(seed=2, **kind))
    [name] = kind.values()
    assert str(caught.value) == (
        f"{storage.url} holds the output of `magpie-ray generate`: `{name}` needs an output of its own, so "
        "choose another one"
    )


LATER = {"acceptance.mood": "any", "sampling.user.min_tokens": 0}


def test_a_build_of_a_version_that_lacked_a_key_is_the_build_of_its_neutral_value() -> None:
    storage = memory_storage()
    older, newer = build_of(seed=3), build_of(**without_neutral({"seed": 3, **LATER}, LATER))
    assert newer.fingerprint == older.fingerprint
    assert build_record.open_build(storage, older) == older
    build_record.check_same_build(older, newer, storage, neutral=LATER)


def test_a_record_that_spells_a_neutral_value_out_is_the_same_build() -> None:
    spelt, plain = build_of(seed=3, **LATER), build_of(seed=3)
    assert spelt.fingerprint != plain.fingerprint
    build_record.check_same_build(spelt, plain, memory_storage(), neutral=LATER)
    build_record.check_same_build(plain, spelt, memory_storage(), neutral=LATER)


@pytest.mark.parametrize(("mood", "then", "now"), [("good", '"any"', '"good"'), (None, '"any"', "null")])
def test_a_mismatch_shows_the_neutral_value_of_a_key_that_a_build_lacks(
    mood: str | None, then: str, now: str
) -> None:
    older, newer = build_of(), build_of(**{"acceptance.mood": mood})
    for first, second, shown in (
        (older, newer, f"acceptance.mood: the build has {then}, now {now}"),
        (newer, older, f"acceptance.mood: the build has {now}, now {then}"),
    ):
        with pytest.raises(BuildMismatchError) as caught:
            build_record.check_same_build(first, second, memory_storage(), neutral=LATER)
        assert shown in str(caught.value)
        assert "min_tokens" not in str(caught.value)


def test_of_long_values_a_mismatch_shows_where_they_differ() -> None:
    storage = memory_storage()
    build_record.open_build(storage, build_of(system_prompt="a" * 500 + "cats" + "b" * 500))
    with pytest.raises(BuildMismatchError) as caught:
        build_record.open_build(storage, build_of(system_prompt="a" * 500 + "dogs" + "b" * 500))
    text = str(caught.value)
    assert "aacatsbb" in text
    assert "aadogsbb" in text
    assert len(text) < 600


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"identity": {"n_turns": 9}}, "changed by hand"),
        ({"rows_per_partition": 5}, "changed by hand"),
        ({"fingerprint": "0" * 64}, "changed by hand"),
        ({"fingerprint": None}, "changed by hand"),
        ({"identity": 5}, "damaged or foreign"),
        ({"columns": None}, "damaged or foreign"),
        ({"columns": 5}, "damaged or foreign"),
        ({"versions": None}, "damaged or foreign"),
        ({"surprise": 1}, "damaged or foreign"),
        ({"layout_version": 2}, "has layout version 2, this magpie-ray reads 1"),
        ({"layout_version": None}, "has layout version None"),
    ],
)
def test_a_build_json_that_was_changed_is_refused_by_name(edit: dict[str, object], reason: str) -> None:
    storage = memory_storage()
    build_record.open_build(storage, build_of())
    rewrite(storage, BUILD_KEY, **edit)
    for act in (build_record.read_build, lambda storage: build_record.open_build(storage, build_of())):
        with pytest.raises(CorruptBuildError, match=reason) as caught:
            act(storage)
        assert storage.display(BUILD_KEY) in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[]", b"[" * 100_000])
def test_records_that_are_no_json_objects_are_refused_by_name(raw: bytes) -> None:
    storage = memory_storage()
    storage.create(BUILD_KEY, raw)
    with pytest.raises(CorruptBuildError, match=BUILD_KEY):
        build_record.read_build(storage)


# ---- runs


def test_eight_racing_runs_take_eight_numbers() -> None:
    storage, barrier = memory_storage(), Barrier(8)

    def start(_: int) -> int:
        barrier.wait()
        return run_records.start_run(storage, num_rows=10, host="here", config={}).number

    with ThreadPoolExecutor(8) as pool:
        numbers = sorted(pool.map(start, range(8)))
    assert numbers == list(range(1, 9))
    assert [record.number for record in run_records.read_runs(storage)] == numbers


def test_a_run_says_how_it_ended() -> None:
    storage = memory_storage()
    first = run_records.start_run(storage, num_rows=10, host="a", config={"seed": 1})
    run_records.start_run(storage, num_rows=20, host="b", config={})
    assert first.key == "_magpie/runs/000001.json"
    ended = run_records.end_run(
        storage, first, outcome="failed", cause="the engine died", engines=EngineStats(steps=3)
    )
    runs = run_records.read_runs(storage)
    assert runs[0] == ended
    assert [(run.outcome, run.cause) for run in runs] == [("failed", "the engine died"), ("running", None)]
    assert runs[0].engines is not None
    assert runs[0].engines["steps"] == 3
    assert runs[0].ended is not None
    assert runs[1].ended is None


def test_the_last_run_says_how_many_rows_there_are_to_be() -> None:
    storage = memory_storage()
    assert run_records.rows_wanted(run_records.read_runs(storage), ()) == 0
    for num_rows in (1_000_000, 100):
        run_records.start_run(storage, num_rows=num_rows, host="here", config={})
    assert run_records.rows_wanted(run_records.read_runs(storage), ()) == 100


def test_other_files_among_the_runs_are_left_alone() -> None:
    storage = memory_storage()
    run_records.start_run(storage, num_rows=10, host="here", config={})
    storage.create("_magpie/runs/000001.json.bak", b"?")
    storage.create("_magpie/runs/.DS_Store", b"?")
    assert run_records.start_run(storage, num_rows=10, host="here", config={}).number == 2
    assert [run.number for run in run_records.read_runs(storage)] == [1, 2]


@pytest.mark.parametrize("edit", [{"number": 7}, {"num_rows": "many"}, {"token": None}, {"more": 1}])
def test_a_run_that_was_changed_is_left_out_by_name(
    edit: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    storage = memory_storage()
    sound = run_records.start_run(storage, num_rows=10, host="here", config={})
    run = run_records.start_run(storage, num_rows=10, host="here", config={})
    rewrite(storage, run.key, **edit)
    assert run_records.read_runs(storage) == [sound]
    assert storage.display(run.key) in caplog.text
    [first, problem] = run_records.read_each_run(storage)
    assert (first, storage.display(run.key) in str(problem)) == (sound, True)


def test_a_run_writes_over_no_other_drivers_record(caplog: pytest.LogCaptureFixture) -> None:
    storage = memory_storage()
    zombie = run_records.start_run(storage, num_rows=10, host="here", config={})
    storage.delete(zombie.key)
    theirs = run_records.start_run(storage, num_rows=20, host="there", config={})
    assert theirs.number == zombie.number
    run_records.restore_run(storage, zombie)
    run_records.end_run(storage, zombie, outcome="failed")
    assert run_records.read_runs(storage) == [theirs]
    assert "record of another driver, on 'there'" in caplog.text
    ended = run_records.end_run(storage, theirs, outcome="done")
    assert run_records.read_runs(storage) == [ended]


def test_a_removed_record_is_written_again_with_the_end_of_its_run() -> None:
    storage = memory_storage()
    run = run_records.start_run(storage, num_rows=10, host="here", config={})
    storage.delete(run.key)
    ended = run_records.end_run(storage, run, outcome="done")
    assert run_records.read_runs(storage) == [ended]


def test_a_build_that_used_up_its_engine_seeds_takes_no_more_runs() -> None:
    storage = memory_storage()
    storage.create(f"_magpie/runs/{draws.MAX_RUNS - 1:06d}.json", b"{}")
    with pytest.raises(PreflightError, match=r"4095 runs.*another output\.path"):
        run_records.start_run(storage, num_rows=10, host="here", config={})


# ---- secrets


def test_no_secret_is_in_a_record() -> None:
    storage = memory_storage()
    config = config_of(
        output={
            "path": storage.url,
            "storage_options": {
                "key": "AKIAXXXXXXXX",
                "secret": "s3cr3t",
                "client_kwargs": {"token": "t0k3n"},
            },
        },
        engine={"extra": {"hf_token": "hf_abcdefgh1234", "hf_overrides": {"api_key": "k3y"}}},
    )
    build_record.open_build(storage, build_of(config=config, **config.identity()))
    run = run_records.start_run(storage, num_rows=10, host="here", config=config.recorded())
    with pytest.raises(BuildMismatchError) as refused:
        build_record.open_build(storage, build_of(seed=99))
    written = str(refused.value) + "".join(
        storage.read(item.key).decode() for item in storage.list_objects("")
    )
    assert run.config["output"] is not None
    for secret in ("AKIA", "s3cr3t", "t0k3n", "hf_abc", "k3y"):
        assert secret not in written
    assert "num_rows" not in json.loads(storage.read(BUILD_KEY))["config"]
