"""Families of chat templates: each derives to what its models were trained with, for any messages."""

import datetime
import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.chat_format import ChatFormat, derive
from magpie_ray.errors import FormatError
from tests.chat_format.families import FAMILIES, Family
from tests.chat_format.test_derivation import LONGER, byte_level, ids_of, text

DATE = datetime.date(2024, 7, 26)
THINKERS = [family for family in FAMILIES if family.thinking is not None]


@cache
def tokenizer_of(family: Family) -> Any:
    names = {"eos_token": family.eos}
    if family.bos in family.tokens:
        names["bos_token"] = family.bos
    return byte_level(family.template, [*dict.fromkeys((*family.tokens, family.eos))], **names)


@cache
def derived(family: Family, thinking: bool | None = None) -> ChatFormat:
    systems = ["SYS"] if family.system else []
    return derive(tokenizer_of(family), system_prompts=systems, date=DATE, thinking=thinking)


def named(families: Any) -> Any:
    return pytest.mark.parametrize("family", families, ids=lambda family: family.name)


@named(FAMILIES)
def test_a_family_derives_to_the_texts_it_is_known_for(family: Family) -> None:
    form = derived(family)
    assert form.pre_query == family.pre_query
    assert form.user_to_assistant == family.generation
    assert form.history_user_to_assistant == family.history
    assert form.next_user == family.next_user
    assert (form.system_prefixes[0].text if form.system_prefixes else None) == family.system
    assert (form.multi_turn_problem is None) == family.turns
    assert form.can_think == (family.thinking is not None)


@named(THINKERS)
@pytest.mark.parametrize("thinking", [True, False])
def test_thinking_is_turned_on_and_off(family: Family, thinking: bool) -> None:
    form = derived(family, thinking)
    assert form.user_to_assistant == (family.thinking if thinking else family.plain)
    assert (form.reasoning is not None) == thinking


@named(FAMILIES)
@pytest.mark.parametrize("thinking", [None, True, False])
def test_both_roles_are_ended_by_a_token_or_a_text_of_the_format(
    family: Family, thinking: bool | None
) -> None:
    if thinking and family.thinking is None:
        with pytest.raises(FormatError, match=r"^model\.thinking: got true, but .* no place for reasoning"):
            derived(family, thinking)
        return
    tokenizer = tokenizer_of(family)
    form = derived(family, thinking)
    for text_after, stops in (
        (family.generation, form.user_stop_token_ids),
        (family.next_user, (*form.assistant_stop_token_ids, *tokenizer.convert_tokens_to_ids(["<|end|>"]))),
    ):
        ids = tokenizer(text_after, add_special_tokens=False)["input_ids"]
        token = next((i for i in ids if i in form.special_token_ids), None)
        assert token in stops or any(text_after.startswith(stop) for stop in form.stop_strings)


def test_a_channel_change_does_not_end_an_answer_that_is_thought_about() -> None:
    [family] = [family for family in FAMILIES if family.name == "gpt-oss"]
    tokenizer = tokenizer_of(family)
    end, returned = tokenizer.convert_tokens_to_ids(["<|end|>", "<|return|>"])
    assert derived(family, False).assistant_stop_token_ids == (end, returned)
    form = derived(family, True)
    assert form.assistant_stop_token_ids == (returned,)
    assert form.reasoning is not None
    generated = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|end|>"
    )
    assert form.reasoning.split(generated) == ("Hm.", "Yes.")


@named(THINKERS)
def test_reasoning_is_told_from_content_as_the_model_writes_them(family: Family) -> None:
    reasoning = derived(family, True).reasoning
    assert reasoning is not None
    opening = "" if reasoning.opened else reasoning.opening
    assert reasoning.split(f"{opening}\nHm.\n{reasoning.closing}\n\nYes.") == ("Hm.", "Yes.")
    assert reasoning.split(f"{reasoning.opening}Hm.") is None
    assert reasoning.opened == (family.thinking or "").rstrip().endswith(reasoning.opening)
    markers = derived(family, False).role_markers
    assert any(marker in reasoning.opening for marker in markers)


@named(THINKERS)
def test_thinking_that_has_no_switch_is_told_how_it_is_turned_off(family: Family) -> None:
    off = derived(family, False)
    warned = [warning for warning in off.warnings if "no switch for thinking" in warning]
    assert bool(warned) != bool(re.search("enable_thinking|if thinking", family.template))


def rendered(
    tokenizer: Any, contents: list[str], system: str | None, *, parts: bool, **variables: bool
) -> list[int]:
    messages = [{"role": "assistant" if i % 2 else "user", "content": c} for i, c in enumerate(contents)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    if parts:
        messages = [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]
    whole = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, strftime_now=DATE.strftime, **variables
    )
    return list(tokenizer(whole, add_special_tokens=False)["input_ids"])


@named(THINKERS)
@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_prompts_with_the_switch_turned_have_the_ids_of_the_whole_text(
    family: Family, thinking: bool, count: int
) -> None:
    tokenizer = tokenizer_of(family)
    form = derived(family, thinking)
    contents = LONGER[:count]
    prompt = form.prompt(form.prefix("SYS"), ids_of(tokenizer, form, contents, "SYS"))
    whole = rendered(tokenizer, contents, "SYS", parts=False, enable_thinking=thinking, thinking=thinking)
    if any("no switch" in warning for warning in form.warnings):
        left_out = tokenizer.decode(whole).removesuffix(family.generation)
        assert tokenizer.decode(prompt) == left_out + (family.plain or "")
    else:
        assert prompt == whole


@named(FAMILIES)
@pytest.mark.parametrize("system", [None, "SYS"])
def test_prompts_have_the_ids_of_the_whole_text_for_any_messages(family: Family, system: str | None) -> None:
    if system and not family.system:
        pytest.skip("takes no system text")
    tokenizer = tokenizer_of(family)
    form = derived(family)
    parts = family.name == "typed parts alone"

    def check(contents: list[str]) -> None:
        prompt = form.prompt(form.prefix(system), ids_of(tokenizer, form, contents, system))
        whole = rendered(tokenizer, contents, system, parts=parts)
        if form.stop_strings or (system and form.system_prefixes[0].last_user):
            # Markup that is plain text may join with the words beside it.
            assert tokenizer.decode(prompt) == tokenizer.decode(whole)
        else:
            assert prompt == whole

    for count in (1, 3, 5):
        check(LONGER[:count])

    special = "|".join(family.tokens)
    message = text.filter(lambda content: not any(token in content for token in special.split("|")))

    @settings(max_examples=10, deadline=None)
    @given(st.lists(message, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1))
    def any_messages(contents: list[str]) -> None:
        check(contents)

    any_messages()
