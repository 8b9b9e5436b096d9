"""Prefixes that are made while a build runs are those that the format is derived with."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.chat_format.derivation import derive
from magpie_ray.chat_format.format import ChatFormat, SystemPrefix
from magpie_ray.chat_format.prefixes import SPECIMEN, PrefixMaker
from magpie_ray.errors import FormatError
from tests.chat_format.families import FAMILIES as WRITTEN
from tests.chat_format.test_derivation import (
    CHATML,
    FAMILIES,
    FOLDING,
    LLAMA,
    MOVING,
    byte_level,
    published,
    published_family,
    sentencepiece_like,
)
from tests.chat_format.test_families import tokenizer_of
from tests.support.builds import GEMMA_LIKE

LONG = "You are a marine biologist from Chile. Your users run kelp farms.\n- Be brief.\n- Name sources. " * 8
PROMPTS = [
    LONG,
    "a\n b ",
    " padded\n\n",
    "日本語です。",
    "7",
    "Qmessage0x",
    "it's {% raw %}",
    '{"a": "<b>"} ✓',
]
CHANGING = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"
    "{{ m.content | replace('/no_think', '') }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
)


def outcome(make: Any) -> SystemPrefix | str:
    try:
        return make()
    except FormatError as exc:
        return str(exc).partition(". Remove system_prompt")[0].rstrip(".")


def check(tokenizer: Any, maker: PrefixMaker, prompt: str, thinking: bool | None = None) -> None:
    expected = outcome(lambda: derive(tokenizer, thinking=thinking, system_prompts=[prompt]).start(prompt))
    assert outcome(lambda: maker.prefix(prompt)) == expected


def maker_of(tokenizer: Any) -> tuple[PrefixMaker, ChatFormat]:
    form = derive(tokenizer)
    if form.takes_system:
        form = derive(tokenizer, system_prompts=[SPECIMEN])
    return PrefixMaker.of(tokenizer, form), form


@cache
def published_maker(path: Path) -> tuple[Any, PrefixMaker]:
    _, tokenizer, _ = published_family(path)
    return tokenizer, maker_of(tokenizer)[0]


@pytest.mark.skipif(not FAMILIES, reason="MAGPIE_RAY_CHAT_TEMPLATES names no folder of templates")
@published
def test_prefixes_of_published_templates_are_those_of_derive(path: Path) -> None:
    tokenizer, maker = published_maker(path)

    @settings(max_examples=12, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
    def any_prompt(prompt: str) -> None:
        check(tokenizer, maker, prompt)

    for prompt in PROMPTS:
        check(tokenizer, maker, prompt)
    any_prompt()


@pytest.mark.parametrize("family", WRITTEN, ids=lambda family: family.name)
@pytest.mark.parametrize("thinking", [None, True, False])
def test_prefixes_of_other_families_are_those_of_derive(family: Any, thinking: bool | None) -> None:
    tokenizer = tokenizer_of(family)
    try:
        form = derive(tokenizer, thinking=thinking)
        if form.takes_system:
            form = derive(tokenizer, thinking=thinking, system_prompts=[SPECIMEN])
    except FormatError:
        return  # refused for every prompt
    maker = PrefixMaker.of(tokenizer, form, thinking=thinking)
    for prompt in PROMPTS:
        check(tokenizer, maker, prompt, thinking=thinking)


@pytest.mark.parametrize("prepend", ["first", "always"])
@pytest.mark.parametrize("template", [CHATML, MOVING, FOLDING, LLAMA])
def test_prefixes_with_word_borders_are_those_of_derive(template: str, prepend: str) -> None:
    tokenizer = sentencepiece_like(template, prepend)
    form = derive(tokenizer, system_prompts=[SPECIMEN])
    maker = PrefixMaker.of(tokenizer, form)
    for prompt in PROMPTS:
        check(tokenizer, maker, prompt)


def test_a_prompt_that_the_template_changes_is_refused_alone_and_among_others() -> None:
    maker, _ = maker_of(byte_level(CHANGING, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]))
    maker.check([f"Prompt {number}." for number in range(50)])
    with pytest.raises(FormatError, match=r"does not write the system prompt 'Think\. /no_think now'"):
        maker.check(["You are kind.", "Think. /no_think now", "You are brief."])
    with pytest.raises(FormatError, match=r"contains '<\|eot_id\|>', which is a special token"):
        maker.check(["You are kind.", "Say <|eot_id|>"])


def test_a_template_without_a_system_role_refuses_every_prompt() -> None:
    tokenizer = byte_level(GEMMA_LIKE, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    with pytest.raises(FormatError, match="takes no system prompt"):
        maker_of(tokenizer)[0].check(["You are kind."])
