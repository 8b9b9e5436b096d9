"""What follows for a worker from the config and the engine it got."""

from typing import Any

import pytest

from magpie_ray.config.sampling import FirstTokens
from magpie_ray.preflight.build_spec import resolve_build
from magpie_ray.worker.parts import make_recipe
from magpie_ray.worker.spec import WorkerSpec
from tests.support.builds import config_of, memory_storage


def spec_of(**keys: Any) -> WorkerSpec:
    config = config_of(**keys)
    build_spec = resolve_build(config)
    return WorkerSpec(
        build_spec=build_spec,
        storage=memory_storage(),
        fingerprint="f" * 64,
        run=1,
        engine_start=0,
        device="cpu",
        distributed_executor_backend=None,
    )


def test_rules_for_first_tokens_reach_the_requests_of_their_role() -> None:
    sampling = {"user": {"first_tokens": {"ban": ["#"]}, "first_line_only": True}}
    (pair,) = make_recipe(spec_of(sampling=sampling)).samplings
    assert pair.user.settings.first_tokens == FirstTokens(ban=["#"])
    assert (pair.user.first_line_only, pair.assistant.first_line_only) == (True, False)
    assert not pair.assistant.settings.first_tokens.is_active


def test_a_line_has_the_ids_of_the_text_that_it_is_in_its_place_of_the_dialogue() -> None:
    spec = spec_of(system_prompt="Be kind.")
    recipe, form = make_recipe(spec), spec.build_spec.chat_format
    assert recipe.encode is not None
    line = "Which is it?"
    for index, messages in enumerate([[], ["Why?"], ["Why?", "So."]]):
        ids = recipe.encode(line, index, "Be kind.")
        before = [recipe.encode(text, at, "Be kind.") for at, text in enumerate(messages)]
        prompt = form.prompt(form.prefix("Be kind."), before)
        assert recipe.decode([prompt + ids])[0].endswith(line)
        assert recipe.decode([ids]) == [line]


@pytest.mark.parametrize("rule", ["reject", "stop"])
def test_the_config_says_what_becomes_of_a_conversation_that_outgrows_the_context(rule: str) -> None:
    assert make_recipe(spec_of(acceptance={"context_full": rule})).acceptance.context_full == rule
