"""What can be known wrong before a cluster or a model is touched is refused here."""

import datetime
import os
from pathlib import Path
from typing import Any

import pytest

from magpie_ray import build, preflight
from magpie_ray.build import BuildRecord
from magpie_ray.config import Config
from magpie_ray.errors import (
    BuildMismatchError,
    ConfigError,
    FormatError,
    PreflightError,
    StorageError,
)
from magpie_ray.output_path import Tick
from magpie_ray.prompts import MULTI_TURN_PROMPT
from magpie_ray.storage import Storage
from tests.builds import DATED, GEMMA_LIKE, commit, config_of, memory_storage, model_folder


@pytest.fixture
def gemma_like(tmp_path: Path) -> str:
    return model_folder(tmp_path / "gemma-like", GEMMA_LIKE)


def opened(config: Config, storage: Storage, grid: int = 4) -> BuildRecord:
    return build.open_build(storage, preflight.draw_up(config).record(grid))


# ---- first tokens


def test_bans_that_leave_no_token_to_begin_with_are_refused() -> None:
    every = {"ban": [chr(code) for code in range(33, 127)] + [chr(code) for code in range(0xA1, 0x180)]}
    with pytest.raises(
        ConfigError, match=r"^sampling\.assistant\.first_tokens\.ban: .* ban fewer texts"
    ) as caught:
        preflight.draw_up(config_of(sampling={"assistant": {"first_tokens": every}}))
    assert caught.value.__cause__ is None
    preflight.draw_up(config_of(sampling={"user": {"first_tokens": {"ban": ["#", "**", "¿"]}}}))


# ---- prompts and templates


def test_a_conversation_starts_with_the_multi_turn_prompt() -> None:
    blueprint = preflight.draw_up(config_of(n_turns=2))
    assert [prompt.text for prompt in blueprint.prompts] == [MULTI_TURN_PROMPT]
    assert MULTI_TURN_PROMPT in blueprint.chat_format.prefix_text(MULTI_TURN_PROMPT)
    assert preflight.draw_up(config_of(n_turns=2, system_prompt="")).prompts == ()
    assert preflight.draw_up(config_of()).prompts == ()


def test_where_the_template_takes_no_system_role_the_default_prompt_is_left_out(gemma_like: str) -> None:
    blueprint = preflight.draw_up(config_of(n_turns=2, model={"name": gemma_like}))
    assert blueprint.prompts == ()
    assert "multi-turn system prompt is left out" in blueprint.warnings[0]
    assert blueprint.identity()["system_prompt"] == []


def test_where_the_template_takes_no_system_role_a_prompt_that_was_asked_for_is_refused(
    gemma_like: str,
) -> None:
    with pytest.raises(FormatError, match="system"):
        preflight.draw_up(config_of(model={"name": gemma_like}, system_prompt="Be kind."))


def test_a_literal_pre_query_leaves_the_default_prompt_out_and_refuses_another() -> None:
    literal = {"name": "builtin:tiny-chat", "pre_query_template": "<|start_header_id|>user<|end_header_id|>"}
    blueprint = preflight.draw_up(config_of(n_turns=2, model=literal))
    assert blueprint.prompts == ()
    assert blueprint.warnings
    with pytest.raises(FormatError, match="pre_query_template"):
        preflight.draw_up(config_of(model=literal, system_prompt="Be kind."))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"system_prompt": "kind " * 99},
            r"^system_prompt: 'kind .* prompt of \d+ tokens, and .*: shorten it, or raise",
        ),
        ({"system_prompt": {"a": "Be kind.", "b": "kind " * 99}}, r"^system_prompt\.b: 'kind "),
        ({"n_turns": 2}, r"^system_prompt: 'You are a helpful AI "),
        ({"engine": {"max_model_len": 3}}, r"^engine\.max_model_len: the chat format's .*: raise engine"),
    ],
)
def test_a_prompt_that_leaves_no_room_in_the_context_is_refused(keys: dict[str, Any], message: str) -> None:
    short = {"user": {"max_tokens": 2}, "assistant": {"max_tokens": 2}}
    with pytest.raises(ConfigError, match=message):
        preflight.draw_up(config_of(**({"engine": {"max_model_len": 40}, "sampling": short} | keys)))


def test_a_prompt_that_leaves_room_for_one_token_is_taken() -> None:
    config = config_of(system_prompt="Be kind.", engine={"max_model_len": 3000})
    tokens = len(preflight.draw_up(config).chat_format.prefix("Be kind."))
    short = {"user": {"max_tokens": 1}, "assistant": {"max_tokens": 1}}
    limited = {"system_prompt": "Be kind.", "sampling": short}
    preflight.draw_up(config_of(**limited, engine={"max_model_len": tokens + 1}))
    with pytest.raises(ConfigError, match=rf"of {tokens} tokens, and engine\.max_model_len is {tokens}"):
        preflight.draw_up(config_of(**limited, engine={"max_model_len": tokens}))


def test_trust_in_a_models_code_says_what_it_means(caplog: pytest.LogCaptureFixture) -> None:
    preflight.draw_up(config_of())
    assert not caplog.text
    preflight.draw_up(config_of(model={"trust_remote_code": True}))
    assert "Python code of builtin:tiny-chat at sha256-" in caplog.text
    assert "all rights of this job" in caplog.text


def test_instructions_that_would_all_be_the_same_are_warned_of() -> None:
    greedy = {"user": {"temperature": 0}}
    [warning] = preflight.draw_up(config_of(sampling=greedy)).warnings
    assert warning.startswith("sampling.user.temperature is 0")
    assert preflight.draw_up(config_of(sampling=greedy, num_rows=1)).warnings == ()


# ---- resuming


def test_a_greedy_user_with_a_temperature_for_the_first_tokens_is_not_warned_of() -> None:
    user = {"temperature": 0, "first_tokens": {"temperature": 1}}
    assert preflight.draw_up(config_of(num_rows=2, sampling={"user": user})).warnings == ()


def test_a_resume_keeps_the_date_of_the_template(tmp_path: Path) -> None:
    config = config_of(model={"name": model_folder(tmp_path / "dated", DATED)})
    record = preflight.draw_up(config).record(4)
    today = datetime.date.today().isoformat()
    assert record.identity["chat_format.date"] == today
    identity = record.identity | {"chat_format.date": "2024-07-26"}
    old = BuildRecord(**{f: getattr(record, f) for f in BuildRecord.__slots__} | {"identity": identity})
    again = preflight.draw_up(config, old)
    assert again.chat_format.date == "2024-07-26"
    assert "Today is 2024-07-26." in again.chat_format.pre_query


def test_a_resume_keeps_the_commit_unless_a_revision_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def resolve(name: str, revision: str | None) -> Any:
        asked.append(revision)
        raise FormatError("far enough")

    config = config_of(model={"name": "org/chat"})
    record = preflight.draw_up(config_of()).record(4)
    identity = record.identity | {"model.name": "org/chat", "model.commit": "abc"}
    known = BuildRecord(**{f: getattr(record, f) for f in BuildRecord.__slots__} | {"identity": identity})
    monkeypatch.setattr(preflight, "resolve_model", resolve)
    for case, existing in (
        (config, None),
        (config, known),
        (config_of(model={"name": "org/chat", "revision": "v2"}), known),
        (config_of(model={"name": "org/other"}), known),
        (config_of(), record),  # a folder
    ):
        with pytest.raises(FormatError, match="far enough"):
            preflight.draw_up(case, existing)
    assert asked == [None, "abc", "v2", None, None]


def test_the_same_config_resumes_and_rows_may_grow() -> None:
    storage, config = memory_storage(), config_of()
    record = opened(config, storage)
    commit(storage, record, 0, 4)
    grown = config_of(num_rows=14)
    committed = preflight.check_existing(grown, preflight.draw_up(grown, record), record, storage)
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
        preflight.check_existing(other, preflight.draw_up(other, record), record, storage)
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
    preflight.check_existing(other, preflight.draw_up(other, record), record, storage)


def test_a_model_that_was_changed_in_its_folder_is_refused(tmp_path: Path) -> None:
    storage, name = memory_storage(), model_folder(tmp_path / "model", DATED)
    config = config_of(model={"name": name})
    record = opened(config, storage)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(BuildMismatchError, match=r"model\.commit"):
        preflight.check_existing(config, preflight.draw_up(config, record), record, storage)


def test_fewer_rows_than_there_are_is_refused() -> None:
    storage, config = memory_storage(), config_of(num_rows=7)
    record = opened(config, storage)
    commit(storage, record, 0, 4)
    commit(storage, record, 4, 8)
    with pytest.raises(
        BuildMismatchError, match=r"num_rows: got 7, but .* up to 7 already.*Set num_rows to 8"
    ):
        preflight.check_existing(config, preflight.draw_up(config, record), record, storage)


def test_files_that_do_not_belong_are_refused() -> None:
    storage, config = memory_storage(), config_of()
    record = opened(config, storage)
    storage.create("data/notes.txt", b"hello")
    with pytest.raises(PreflightError, match=r"data/notes\.txt"):
        preflight.check_existing(config, preflight.draw_up(config, record), record, storage)


# ---- the output


def test_an_output_that_works_is_left_as_it_was_but_for_old_leftovers(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert preflight.check_output(storage, single_writer=False) is storage
    assert storage.list("") == []
    old = tmp_path / "_magpie" / "tmp" / "left-by-a-writer"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    preflight.check_output(storage, single_writer=False)
    assert not old.exists()


def test_leftovers_that_can_not_be_removed_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Storage) -> int:
        raise StorageError("may not list uploads")

    monkeypatch.setattr(Storage, "remove_leftovers", refused)
    preflight.check_output(memory_storage(), single_writer=False)


def test_a_store_without_exclusive_creation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Storage, "probe", lambda _: False)
    refusal = r"does not support exclusive creation.*output\.single_writer: true.*never more than one run"
    with pytest.raises(PreflightError, match=refusal):
        preflight.check_output(memory_storage(), single_writer=False)


def test_a_single_writer_may_use_a_store_without_exclusive_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = memory_storage()
    assert preflight.check_output(storage, single_writer=True) is storage  # which has it
    monkeypatch.setattr(Storage, "probe", lambda _: False)
    alone = preflight.check_output(storage, single_writer=True)
    assert (alone.url, alone.exclusive) == (storage.url, False)


def test_a_place_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config = config_of(output={"path": str(tmp_path / "file")})
    with pytest.raises(PreflightError, match=r"file can't be used") as caught:
        preflight.check_output(preflight.open_output(config), single_writer=True)
    assert caught.value.exit_code == 2


def test_an_engine_of_several_devices_needs_gpus() -> None:
    config = config_of(engine={"tensor_parallel_size": 2})
    preflight.check_engine_device(config, device="cuda")
    with pytest.raises(ConfigError, match="tensor_parallel_size"):
        preflight.check_engine_device(config, device="cpu")


# ---- the grid and the record


def test_the_grid_is_what_was_asked_for_or_chosen_from_what_a_row_can_take() -> None:
    explicit = config_of(output={"rows_per_partition": 50})
    assert preflight.choose_grid(explicit, num_actors=3, device="cuda") == 50
    many = {"num_rows": 10_000_000}
    grids = [
        preflight.choose_grid(config_of(**many, **keys), num_actors=1, device="cuda")
        for keys in ({"n_turns": 3}, {"n_turns": 1}, {"only_instruction": True})
    ]
    assert grids == sorted(grids)
    assert preflight.choose_grid(config_of(num_rows=80), num_actors=2, device="cuda") == 5


@pytest.mark.parametrize(
    ("keys", "tokens"),
    [
        ({}, 1536),
        ({"only_instruction": True}, 512),
        ({"n_turns": 3}, 4608),
        ({"n_turns": 2, "end_with_user": True}, 2048),
    ],
)
def test_the_most_tokens_of_a_row_are_those_of_its_messages(keys: dict[str, Any], tokens: int) -> None:
    assert preflight.max_tokens_per_row(config_of(**keys)) == tokens


def test_the_record_says_what_it_was_made_with() -> None:
    record = preflight.draw_up(config_of()).record(4)
    assert {"python", "pyarrow", "transformers"} <= set(record.versions)
    assert record.columns == config_of().columns()
    assert record.chat_format["pre_query"]
    assert "chat_format.warnings" not in record.identity


def test_files_without_a_build_are_refused_and_nothing_is_written() -> None:
    storage = memory_storage()
    storage.create("data/part-000000000000.parquet", b"rows of somebody")
    with pytest.raises(PreflightError, match=r"holds files, but there is no _magpie/build\.json"):
        preflight.read_existing(storage)
    assert [item.key for item in storage.list("")] == ["data/part-000000000000.parquet"]


def test_an_output_that_other_processes_can_not_see_is_refused() -> None:
    with pytest.raises(PreflightError, match="which every process has for itself"):
        preflight.check_output_is_shared(Storage("memory://rows"))


def test_a_folder_is_warned_of_where_nodes_must_share_it_and_where_it_goes_with_the_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1/out"
    preflight.warn_of_local_output(config_of(output={"path": "./out"}), Storage(job), nodes=3)
    assert "all 3 nodes of the cluster must share it" in caplog.text
    assert "temporary working directory" in caplog.text
    caplog.clear()
    preflight.warn_of_local_output(config_of(output={"path": "/out"}), Storage("/out"), nodes=1)
    preflight.warn_of_local_output(config_of(), Storage("s3://bucket/out"), nodes=3)
    assert not caplog.text


def test_a_build_without_rows_may_be_deleted_where_the_settings_were_wrong() -> None:
    storage, config = memory_storage(), config_of()
    record = opened(config, storage)
    other = config_of(seed=1)
    with pytest.raises(BuildMismatchError, match=r"there are no rows yet, so delete memory://.*/_magpie"):
        preflight.check_existing(other, preflight.draw_up(other, record), record, storage)


def test_each_build_of_a_schedule_has_a_seed_of_its_own_and_keeps_it() -> None:
    ticks = [
        Tick(template="memory://x/{date}", time=f"2026-11-{day}T00:00:00+00:00", build_id="a")
        for day in (25, 26)
    ]
    drawn = [preflight.draw_up(config_of(), tick=tick) for tick in ticks]
    assert [blueprint.config.seed for blueprint in drawn] == [tick.seed for tick in ticks]
    assert len({blueprint.record(4).fingerprint for blueprint in drawn}) == 2
    assert preflight.draw_up(config_of()).config.seed == 0
    record = drawn[0].record(4)
    assert record.tick == {"template": "memory://x/{date}", "time": ticks[0].time, "build_id": "a"}
    # Reached by its own path, or from where it was moved to.
    assert preflight.draw_up(config_of(), record).config.seed == ticks[0].seed
    assert preflight.draw_up(config_of(), record, tick=ticks[1]).config.seed == ticks[0].seed


def test_one_seed_for_all_builds_of_a_schedule_is_warned_of() -> None:
    tick = Tick(template="memory://x/{date}", time="2026-11-25T00:00:00+00:00", build_id="a")
    [warning] = preflight.draw_up(config_of(seed=0), tick=tick).warnings
    assert "may hold equal rows" in warning
    [warning] = preflight.draw_up(config_of(seed=0, sampling={"reproducible": True}), tick=tick).warnings
    assert "hold the same rows" in warning
    assert "set it to auto" in warning
