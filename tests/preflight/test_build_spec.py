"""A config and its model: what is looked up, what is kept of a build that exists, what is refused."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.config.output_path import Tick
from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.columns import columns_of
from magpie_ray.errors import ConfigError, FormatError
from magpie_ray.preflight import build_spec
from magpie_ray.preflight.build_spec import check_prompts_fit, choose_grid
from magpie_ray.preflight.resolve import resolve_build
from tests.support.builds import DATED, GEMMA_LIKE, config_of, model_folder


@pytest.fixture
def gemma_like(tmp_path: Path) -> str:
    return model_folder(tmp_path / "gemma-like", GEMMA_LIKE)


def test_bans_that_leave_no_token_to_begin_with_are_refused() -> None:
    every = {"ban": [chr(code) for code in range(33, 127)] + [chr(code) for code in range(0xA1, 0x180)]}
    with pytest.raises(
        ConfigError, match=r"^sampling\.assistant\.first_tokens\.ban: .* ban fewer texts"
    ) as caught:
        resolve_build(config_of(sampling={"assistant": {"first_tokens": every}}))
    assert caught.value.__cause__ is None
    resolve_build(config_of(sampling={"user": {"first_tokens": {"ban": ["#", "**", "¿"]}}}))


def test_a_conversation_starts_with_the_multi_turn_prompt() -> None:
    build_spec = resolve_build(config_of(n_turns=2))
    assert [prompt.text for prompt in build_spec.prompts] == [MULTI_TURN_PROMPT]
    assert MULTI_TURN_PROMPT in build_spec.chat_format.prefix_text(MULTI_TURN_PROMPT)
    assert resolve_build(config_of(n_turns=2, system_prompt="")).prompts == ()
    assert resolve_build(config_of()).prompts == ()


def test_where_the_template_takes_no_system_role_the_default_prompt_is_left_out(gemma_like: str) -> None:
    build_spec = resolve_build(config_of(n_turns=2, model={"name": gemma_like}))
    assert build_spec.prompts == ()
    assert "multi-turn system prompt is left out" in build_spec.warnings[0]
    assert build_spec.identity()["system_prompt"] == []


def test_where_the_template_takes_no_system_role_a_prompt_that_was_asked_for_is_refused(
    gemma_like: str,
) -> None:
    with pytest.raises(FormatError, match="system"):
        resolve_build(config_of(model={"name": gemma_like}, system_prompt="Be kind."))


def test_a_literal_pre_query_leaves_the_default_prompt_out_and_refuses_another() -> None:
    literal = {"name": "builtin:tiny-chat", "pre_query_template": "<|start_header_id|>user<|end_header_id|>"}
    build_spec = resolve_build(config_of(n_turns=2, model=literal))
    assert build_spec.prompts == ()
    assert build_spec.warnings
    with pytest.raises(FormatError, match="pre_query_template"):
        resolve_build(config_of(model=literal, system_prompt="Be kind."))


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
        resolve_build(config_of(**({"engine": {"max_model_len": 40}, "sampling": short} | keys)))


def test_a_prompt_that_leaves_room_for_one_token_is_taken() -> None:
    config = config_of(system_prompt="Be kind.", engine={"max_model_len": 2000})
    tokens = len(resolve_build(config).chat_format.prefix("Be kind."))
    short = {"user": {"max_tokens": 1}, "assistant": {"max_tokens": 1}}
    limited = {"system_prompt": "Be kind.", "sampling": short}
    resolve_build(config_of(**limited, engine={"max_model_len": tokens + 1}))
    with pytest.raises(ConfigError, match=rf"of {tokens} tokens, and engine\.max_model_len is {tokens}"):
        resolve_build(config_of(**limited, engine={"max_model_len": tokens}))


def test_a_prompt_that_fills_the_models_own_context_is_refused_once_the_engine_knows_it() -> None:
    build_spec = resolve_build(config_of(system_prompt={"short": "Be kind.", "long": "very " * 50}))
    check_prompts_fit(build_spec, max_model_len=2000)
    with pytest.raises(
        ConfigError, match=r"^system_prompt\.long: .* the model's context has 40, .* shorten it"
    ):
        check_prompts_fit(build_spec, max_model_len=40)


def test_trust_in_a_models_code_says_what_it_means(caplog: pytest.LogCaptureFixture) -> None:
    resolve_build(config_of())
    assert not caplog.text
    resolve_build(config_of(model={"trust_remote_code": True}))
    assert "Python code of builtin:tiny-chat at sha256-" in caplog.text
    assert "all rights of this job" in caplog.text


def test_instructions_that_would_all_be_the_same_are_warned_of() -> None:
    greedy = {"user": {"temperature": 0}}
    [warning] = resolve_build(config_of(sampling=greedy)).warnings
    assert warning.startswith("sampling.user.temperature is 0")
    assert resolve_build(config_of(sampling=greedy, num_rows=1)).warnings == ()


def test_a_greedy_user_with_a_temperature_for_the_first_tokens_is_not_warned_of() -> None:
    user = {"temperature": 0, "first_tokens": {"temperature": 1}}
    assert resolve_build(config_of(num_rows=2, sampling={"user": user})).warnings == ()


def test_first_tokens_hotter_than_vllm_takes_are_warned_of() -> None:
    sampling = {"user": [{"first_tokens": {"temperature": heat}} for heat in (2, 3, 3)]}
    [warning] = resolve_build(config_of(sampling=sampling)).warnings
    assert warning.startswith("sampling.user.first_tokens.temperature is 3: vLLM takes at most 2")


def test_a_resume_keeps_the_date_of_the_template(tmp_path: Path) -> None:
    config = config_of(model={"name": model_folder(tmp_path / "dated", DATED)})
    record = resolve_build(config).record(4)
    today = datetime.date.today().isoformat()
    assert record.identity["chat_format.date"] == today
    identity = record.identity | {"chat_format.date": "2024-07-26"}
    old = BuildRecord(**{f: getattr(record, f) for f in BuildRecord.__slots__} | {"identity": identity})
    again = resolve_build(config, old)
    assert again.chat_format.date == "2024-07-26"
    assert "Today is 2024-07-26." in again.chat_format.pre_query


def test_a_resume_keeps_the_commit_unless_a_revision_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def resolve(name: str, revision: str | None) -> Any:
        asked.append(revision)
        raise FormatError("far enough")

    config = config_of(model={"name": "org/chat"})
    record = resolve_build(config_of()).record(4)
    identity = record.identity | {"model.name": "org/chat", "model.commit": "abc"}
    known = BuildRecord(**{f: getattr(record, f) for f in BuildRecord.__slots__} | {"identity": identity})
    monkeypatch.setattr(build_spec, "resolve_model", resolve)
    for case, existing in (
        (config, None),
        (config, known),
        (config_of(model={"name": "org/chat", "revision": "v2"}), known),
        (config_of(model={"name": "org/other"}), known),
        (config_of(), record),  # a folder
    ):
        with pytest.raises(FormatError, match="far enough"):
            resolve_build(case, existing)
    assert asked == [None, "abc", "v2", None, None]


def test_the_grid_is_what_was_asked_for_or_chosen_from_what_a_row_can_take() -> None:
    explicit = resolve_build(config_of(output={"rows_per_partition": 50}))
    assert choose_grid(explicit, num_actors=3, device="cuda") == 50
    many = {"num_rows": 10_000_000}
    grids = [
        choose_grid(resolve_build(config_of(**many, **keys)), num_actors=1, device="cuda")
        for keys in ({"n_turns": 3}, {"n_turns": 1}, {"only_instruction": True})
    ]
    assert grids == sorted(grids)
    assert choose_grid(resolve_build(config_of(num_rows=80)), num_actors=2, device="cuda") == 5


def test_the_record_says_what_it_was_made_with() -> None:
    record = resolve_build(config_of()).record(4)
    assert {"python", "pyarrow", "transformers"} <= set(record.versions)
    assert record.columns == columns_of(config_of())
    assert record.chat_format["pre_query"]
    assert "chat_format.warnings" not in record.identity


def test_a_build_keeps_the_seed_that_it_has_drawn() -> None:
    ticks = [
        Tick(template="memory://x/{date}", time=f"2026-11-{day}T00:00:00+00:00", build_id="a")
        for day in (25, 26)
    ]
    new = resolve_build(config_of(), tick=ticks[0])
    assert not new.has_seed
    record = new.with_seed(77).record(4)
    assert record.tick == ticks[0]
    assert record.config["seed"] == 77
    # Reached by its own path, or from where it was moved to.
    for tick in (None, *ticks):
        resumed = resolve_build(config_of(), record, tick=tick)
        assert (resumed.has_seed, resumed.config.seed) == (True, 77)
        assert resumed.record(4).fingerprint == record.fingerprint


def test_a_seed_that_is_given_is_not_drawn() -> None:
    given = resolve_build(config_of(seed=0))
    assert (given.has_seed, given.config.seed) == (True, 0)
    drawn = resolve_build(config_of()).with_seed(5).record(4)
    assert resolve_build(config_of(seed=6), drawn).config.seed == 6


def test_one_seed_for_all_builds_of_a_schedule_is_warned_of() -> None:
    tick = Tick(template="memory://x/{date}", time="2026-11-25T00:00:00+00:00", build_id="a")
    [warning] = resolve_build(config_of(seed=0), tick=tick).warnings
    assert "may hold equal rows" in warning
    [warning] = resolve_build(config_of(seed=0, sampling={"reproducible": True}), tick=tick).warnings
    assert "hold the same rows" in warning
    assert "set it to auto" in warning
