"""What follows for a worker from the config and the engine it got."""

from typing import Any

import pytest

from magpie_ray.config.sampling import FirstTokens
from magpie_ray.engine.protocol import Completion
from magpie_ray.generation.conversation import Cohort
from magpie_ray.generation.verdicts import decide
from magpie_ray.worker.parts import make_recipe
from magpie_ray.worker.spec import WorkerSpec
from tests.support.builds import config_of, memory_storage
from tests.support.conversations import conversation_of
from tests.support.specs import worker_spec


def spec_of(**keys: Any) -> WorkerSpec:
    return worker_spec(config_of(**keys), storage=memory_storage())


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
    start = recipe.start_of(0)
    line = "Which <|eot_id|> is it?"
    for index, messages in enumerate([[], ["Why?"], ["Why?", "So."]]):
        ids = recipe.encode(line, index, start, ())
        before = [recipe.encode(text, at, start, ()) for at, text in enumerate(messages)]
        prompt = form.prompt(form.prefix("Be kind."), before)
        assert recipe.decode([prompt + ids])[0].endswith(line)
        assert recipe.decode([ids]) == [line]
        assert recipe.markers.keys().isdisjoint(ids)


@pytest.mark.parametrize("rule", ["reject", "stop"])
def test_the_config_says_what_becomes_of_a_conversation_that_outgrows_the_context(rule: str) -> None:
    assert make_recipe(spec_of(acceptance={"context_full": rule})).acceptance.context_full == rule


@pytest.mark.parametrize("text", ["你好，世界。", "Sure! 🎉 Go 👩‍👩‍👧", "မြန်မာ စကား"])  # noqa: RUF001
def test_a_cut_answer_of_the_bundled_model_keeps_its_whole_characters(text: str) -> None:
    recipe = make_recipe(spec_of())
    assert recipe.encode is not None
    ids = recipe.encode(text, 1, recipe.start_of(0), ())
    for tokens in range(4, len(ids)):
        conversation = conversation_of(Cohort(members=1), accepted=1)
        cut = Completion(request_id=0, token_ids=ids[:tokens], finish_reason="length", num_tokens=tokens)
        [verdict] = decide(recipe, [(conversation, cut)])
        assert verdict.reason is None
        assert text.startswith(verdict.message.text)
        assert recipe.decode([verdict.token_ids]) == [verdict.message.text]
