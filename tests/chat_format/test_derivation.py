"""The chat format: text and ids around messages, prompts, stops, and what is refused."""

import datetime
import json
import os
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from magpie_ray.chat_format import ChatFormat, derive, message_ids
from magpie_ray.chat_format.encoder import Encoder
from magpie_ray.errors import FormatError, ModelError
from magpie_ray.model.tokenizer import load_tokenizer

LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Default.<|im_end|>\n{% endif %}"
    + CHATML
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# No end of the user's turn, plain markers, and a space that only the history has.
PLAIN = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ m.content }}\n\n{% endif %}"
    "{% if m.role == 'user' %}User: {{ m.content }}\n\n{% endif %}"
    "{% if m.role == 'assistant' %}Assistant: {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
# The system text stands inside the last user message.
MOVING = (
    "{{ bos_token }}{% set s = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ s + '\n\n' if s and loop.last else '' }}"
    "{{ m.content }}[/INST]{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
# The same inside the first one.
FOLDING = (
    "{% set s = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{{ '<<SYS>>\n' + s + '\n<</SYS>>\n\n' if s and loop.first else '' }}{{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
SPECIAL = {
    LLAMA: ["<bos>", "<eos>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    CHATML: ["<eos>", "<|im_start|>", "<|im_end|>"],
    DEFAULT_SYSTEM: ["<eos>", "<|im_start|>", "<|im_end|>"],
    GEMMA: ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
    PLAIN: ["<bos>", "<eos>"],
    MOVING: ["<bos>", "<eos>", "[INST]", "[/INST]"],
    FOLDING: ["<bos>", "<eos>"],
}
CORPUS = [
    "What is the one? Why is the sky blue? Is it? The Zoo has 7.\n\nUser: What Assistant: Is it?\n"
    "system assistant user model Yes, it is. Go on, please. word Qmessage"
] * 4
LONGER = ["Why is the sky blue?", "It is. (Rayleigh)", "Go on", "Yes, it is.", "Why"]
MESSAGES = LONGER[:3]


def byte_level(template: str | None, special: list[str] | None = None, **names: Any) -> Any:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return wrapped(core, template, special, **names)


def sentencepiece_like(template: str, prepend: str) -> Any:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    core.decoder = decoders.Metaspace(prepend_scheme=prepend)
    letters = sorted({char for text in CORPUS for char in text} | set("()\n<>[]/|_-:.#bcfg"))
    core.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=120,
            initial_alphabet=letters,
            unk_token="<unk>",
            special_tokens=["<unk>"],
            show_progress=False,
        ),
    )
    return wrapped(core, template, None)


def wrapped(
    core: Tokenizer,
    template: str | None,
    special: list[str] | None,
    *,
    adds_bos: bool = False,
    **names: Any,
) -> Any:
    tokens = SPECIAL[template] if special is None and template else special or []
    core.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    if adds_bos:
        bos = ("<bos>", core.token_to_id("<bos>"))
        core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[bos])
    usual = {"bos_token": "<bos>", "eos_token": "<eos>"}
    chosen = {key: value for key, value in usual.items() if value in tokens} | names
    return PreTrainedTokenizerFast(tokenizer_object=core, chat_template=template, **chosen)


def dialogue(contents: list[str], system: str | None = None) -> list[dict[str, str]]:
    turns = [
        {"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)
    ]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def rendered_ids(tokenizer: Any, contents: list[str], system: str | None = None) -> list[int]:
    text = tokenizer.apply_chat_template(
        dialogue(contents, system), tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def ids_of(
    tokenizer: Any, form: ChatFormat, contents: list[str], system: str | None = None
) -> list[list[int]]:
    return [
        message_ids(tokenizer, form, content, index=index, system_prompt=system)
        for index, content in enumerate(contents)
    ]


def test_texts_of_a_llama_style_template_are_its_own_to_the_letter() -> None:
    form = derive(byte_level(LLAMA), system_prompts=["Be brief."])
    user, assistant = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant"))
    assert form.pre_query == "<bos>" + user
    assert form.prefix_text("Be brief.") == (
        "<bos><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>" + user
    )
    assert form.user_to_assistant == form.history_user_to_assistant == "<|eot_id|>" + assistant
    assert form.next_user == "<|eot_id|>" + user
    assert (form.system_role, form.trimmed_roles, form.warnings) == ("supported", ("user", "assistant"), ())


def test_a_default_system_text_of_the_template_is_in_the_pre_query_and_gives_way_to_another() -> None:
    form = derive(byte_level(DEFAULT_SYSTEM), system_prompts=["Mine."])
    opener = "<|im_start|>user\n"
    assert form.pre_query == f"<|im_start|>system\nYou are Default.<|im_end|>\n{opener}"
    assert form.prefix_text("Mine.") == f"<|im_start|>system\nMine.<|im_end|>\n{opener}"


def test_stops_are_the_turns_end_then_eos_then_the_generation_configs_list() -> None:
    tokenizer = byte_level(LLAMA)
    eot, eos = tokenizer.convert_tokens_to_ids(["<|eot_id|>", "<eos>"])
    form = derive(tokenizer, eos_token_ids=[eos, 3])
    assert form.user_stop_token_ids == form.assistant_stop_token_ids == (eot, eos, 3)
    assert form.stop_strings == ()


def test_without_an_end_of_the_users_turn_the_token_that_follows_stops() -> None:
    tokenizer = byte_level(MOVING)
    inst_end, eos = tokenizer.convert_tokens_to_ids(["[/INST]", "<eos>"])
    form = derive(tokenizer)
    assert form.user_stop_token_ids == (inst_end, eos)
    assert form.assistant_stop_token_ids == (eos,)
    assert form.stop_strings == ()


def test_a_stop_string_serves_only_where_no_token_does() -> None:
    tokenizer = byte_level(PLAIN)
    form = derive(tokenizer)
    assert form.stop_strings == ("\n\nAssistant:",)
    assert form.user_stop_token_ids == (tokenizer.eos_token_id,)
    assert any("stops at" in warning for warning in form.warnings)


@pytest.mark.parametrize(
    ("end", "stop"),
    [
        ("<|im_end|>\n", "<|im_end|>"),
        ("<|im_end|>", "<|im_end|>"),
        ("\n</s>\n", "\n</s>"),
        (" [END OF TURN]", " [END OF TURN]"),
        ("<｜end▁of▁turn｜>\n\n", "<｜end▁of▁turn｜>"),
    ],
)
def test_a_stop_string_of_markers_that_are_no_tokens_is_the_mark_alone(end: str, stop: str) -> None:
    template = CHATML.replace("<|im_end|>\n", f"{{{{ {end!r} }}}}")
    form = derive(byte_level(template, ["<eos>"]))
    assert form.user_to_assistant == f"{end}<|im_start|>assistant\n"
    assert form.stop_strings == (stop,)


def test_a_tag_of_html_is_no_mark() -> None:
    template = CHATML.replace("<|im_end|>\n", "<br>").replace("<|im_start|>{{ m.role }}\n", "[{{ m.role }}] ")
    form = derive(byte_level(template.replace("<|im_start|>assistant\n", "[assistant]"), ["<eos>"]))
    assert form.stop_strings == ("<br>[assistant]", "<br>[user]")


def test_plain_markup_before_the_token_that_ends_a_message_stops_as_well() -> None:
    template = CHATML.replace("{{ m.content }}", "{{ m.content }}{{ ' /quick' if m.role == 'user' }}")
    tokenizer = byte_level(template, SPECIAL[CHATML])
    form = derive(tokenizer)
    assert form.stop_strings == (" /quick",)
    assert form.user_stop_token_ids[0] == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_history_with_more_in_it_than_the_generation_prompt_is_kept_apart_from_it() -> None:
    template = (
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n"
        "{{ '<think></think>\n' if m.role == 'assistant' }}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = byte_level(template, ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<eos>"])
    form = derive(tokenizer)
    assert form.user_to_assistant == "<|assistant|>"
    assert form.history_user_to_assistant == "<|assistant|>\n<think></think>\n"
    user, assistant = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
    assert form.user_stop_token_ids == (assistant, tokenizer.eos_token_id)
    assert form.assistant_stop_token_ids == (user, tokenizer.eos_token_id)
    assert form.prompt(form.prefix(None), ids_of(tokenizer, form, LONGER)) == rendered_ids(tokenizer, LONGER)


def test_white_space_before_the_token_that_ends_a_message_is_not_written_twice() -> None:
    template = (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    tokenizer = byte_level(template, ["<|system|>", "<|user|>", "<|assistant|>", "<eos>"])
    form = derive(tokenizer)
    assert form.user_stop_token_ids[0] == tokenizer.convert_tokens_to_ids("<|assistant|>")
    generated = tokenizer("Go on\n", add_special_tokens=False)["input_ids"]
    assert form.prompt(form.prefix(None), [generated]) == rendered_ids(tokenizer, ["Go on"])


def test_markers_are_tokens_and_plain_headers_but_no_plain_words() -> None:
    assert set(derive(byte_level(LLAMA)).role_markers) == set(SPECIAL[LLAMA]) - {"<eos>"}
    assert set(derive(byte_level(PLAIN)).role_markers) == {"<bos>", "<eos>", "\nAssistant:", "\nUser:"}
    plain = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<eos>\n{% endfor %}<|assistant|>"
    markers = derive(byte_level(plain, ["<eos>"])).role_markers
    assert set(markers) == {"<eos>", "<|assistant|>", "<|user|>", "<|system|>"}


@pytest.mark.parametrize("template", list(SPECIAL))
@pytest.mark.parametrize("count", [1, 3])
def test_a_prompt_has_the_ids_of_the_whole_text(template: str, count: int) -> None:
    tokenizer = byte_level(template)
    form = derive(tokenizer)
    contents = LONGER[:count]
    prompt = form.prompt(form.prefix(None), ids_of(tokenizer, form, contents))
    assert prompt == rendered_ids(tokenizer, contents)


@pytest.mark.parametrize("template", [LLAMA, CHATML, PLAIN, FOLDING])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_prompt_with_a_system_text_has_the_ids_of_the_whole_text(template: str, count: int) -> None:
    tokenizer = byte_level(template)
    system = "Be {brief}.\nmessage0 'x'"
    form = derive(tokenizer, system_prompts=["Another.", system])
    contents = LONGER[:count]
    prompt = form.prompt(form.prefix(system), ids_of(tokenizer, form, contents, system))
    assert prompt == rendered_ids(tokenizer, contents, system)


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("kind", ["byte-level", "first", "always"])
def test_a_system_text_that_moves_stands_in_the_last_user_message_of_every_prompt(
    count: int, kind: str
) -> None:
    tokenizer = byte_level(MOVING) if kind == "byte-level" else sentencepiece_like(MOVING, kind)
    system = "Be brief."
    form = derive(tokenizer, system_prompts=[system])
    contents = LONGER[:count]
    messages = ids_of(tokenizer, form, contents, system)
    prompt = form.prompt(form.prefix(system), messages)
    expected = tokenizer.decode(rendered_ids(tokenizer, contents, system))
    assert tokenizer.decode(prompt) == expected
    before = form.prompt(form.prefix(system), messages[:-1])
    assert tokenizer.decode([*before, *messages[-1], *form.user_to_assistant_ids]) == expected


@pytest.mark.parametrize("template", [LLAMA, PLAIN, FOLDING])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_user_continues_where_the_text_of_the_next_user_message_starts(
    template: str, system: str | None
) -> None:
    tokenizer = byte_level(template)
    form = derive(tokenizer, system_prompts=[system] if system else [])
    messages = ids_of(tokenizer, form, MESSAGES, system)
    prompt = form.prompt(form.prefix(system), messages[:2])
    assert [*prompt, *messages[2], *form.user_to_assistant_ids] == rendered_ids(tokenizer, MESSAGES, system)


@pytest.mark.parametrize("template", [MOVING, FOLDING, GEMMA, PLAIN, LLAMA, CHATML])
@pytest.mark.parametrize("prepend", ["first", "always"])
def test_a_tokenizer_that_joins_spaces_with_words_gets_the_ids_of_the_whole_text(
    template: str, prepend: str
) -> None:
    tokenizer = sentencepiece_like(template, prepend)
    form = derive(tokenizer)
    prompt = form.prompt(form.prefix(None), ids_of(tokenizer, form, MESSAGES))
    assert prompt == rendered_ids(tokenizer, MESSAGES)


def spellings(marker: str) -> list[str]:
    return [f"The {marker} is one.", marker, f"a{marker}{marker}", f"{marker} one", f"Is it <{marker}?"]


def check_spelled_markers(tokenizer: Any, form: ChatFormat) -> None:
    """A message that spells a marker out has its text, and not the marker's id."""
    encoder = Encoder(tokenizer)
    for token_id, marker in list(encoder.markers.items())[:12]:
        for content in spellings(marker):
            for index in (0, 1, 2):
                ids = message_ids(encoder, form, content, index=index)
                assert encoder.markers.keys().isdisjoint(ids)
                assert tokenizer.decode(ids).strip() == content
                kept = message_ids(encoder, form, content, index=index, generated={token_id})
                assert token_id in kept


@pytest.mark.parametrize("template", [LLAMA, CHATML, GEMMA, FOLDING])
def test_a_marker_that_a_message_spells_out_is_text(template: str) -> None:
    tokenizer = byte_level(template)
    check_spelled_markers(tokenizer, derive(tokenizer))


@pytest.mark.parametrize("prepend", ["first", "always"])
def test_a_marker_in_a_message_is_text_for_a_tokenizer_that_joins_spaces_with_words(prepend: str) -> None:
    tokenizer = sentencepiece_like(LLAMA, prepend)
    check_spelled_markers(tokenizer, derive(tokenizer))


def test_a_space_at_the_end_of_the_pre_query_is_left_to_the_message() -> None:
    tokenizer = byte_level(PLAIN)
    form = derive(tokenizer)
    assert form.pre_query == "<bos>User: "
    assert tokenizer.decode(form.pre_query_ids) == "<bos>User:"
    assert tokenizer.decode(message_ids(tokenizer, form, "What", index=0)) == " What"


def test_a_slow_tokenizer_is_as_good_as_a_fast_one() -> None:
    tokenizer = ByT5Tokenizer(extra_ids=0, chat_template=CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    form = derive(tokenizer)
    assert form.pre_query == "<|im_start|>user\n"
    prompt = form.prompt(form.prefix(None), ids_of(tokenizer, form, MESSAGES))
    assert prompt == rendered_ids(tokenizer, MESSAGES)


def test_a_tokenizer_that_joins_the_end_of_a_message_with_a_marker_is_warned_about() -> None:
    plain = (
        "{% for m in messages %}|{{ m.role }}|\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}|assistant|\n{% endif %}"
    )
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=258, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(["?\n?\n?\n"], trainer)
    form = derive(wrapped(core, plain, ["<eos>"]))
    assert any("'Why is the sky blue?'" in warning for warning in form.warnings)


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)


@pytest.mark.parametrize("template", [LLAMA, CHATML, GEMMA])
def test_any_messages_make_the_prompt_that_the_whole_text_makes(template: str) -> None:
    tokenizer = byte_level(template)
    form = derive(tokenizer)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(text, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1))
    def check(contents: list[str]) -> None:
        messages = [tokenizer(content, add_special_tokens=False)["input_ids"] for content in contents]
        assert form.prompt(form.prefix(None), messages) == rendered_ids(tokenizer, contents)

    check()


def test_trailing_white_space_is_dropped_from_messages_as_the_template_does() -> None:
    tokenizer = byte_level(GEMMA)
    form = derive(tokenizer)
    messages = [
        tokenizer(content, add_special_tokens=False)["input_ids"] for content in ("Go \n", "It\n\n", "Is")
    ]
    assert form.prompt(form.prefix(None), messages) == rendered_ids(tokenizer, ["Go", "It", "Is"])


def test_a_generation_prompt_of_another_role_than_the_historys_is_warned_about() -> None:
    for asked in ("<|im_start|>bot\n", "<|im_start|>Assistant\n", "<|im_start|>assistant:\n"):
        template = CHATML.replace("<|im_start|>assistant\n", asked)
        for thinking in (None, False):
            [warning] = derive(byte_level(template, SPECIAL[CHATML]), thinking=thinking).warnings
            assert repr(f"<|im_end|>\n{asked}") in warning
            assert repr("<|im_end|>\n<|im_start|>assistant\n") in warning
    for template in SPECIAL:
        assert not any("may be wrong" in warning for warning in derive(byte_level(template)).warnings)


@pytest.mark.parametrize(
    ("template", "tokens", "opener"),
    [
        (CHATML.split("{% if add")[0], SPECIAL[CHATML], "<|im_end|>\n<|im_start|>assistant\n"),
        (CHATML.split("{% if add")[0], ["<eos>"], "<|im_end|>\n<|im_start|>assistant\n"),
        (PLAIN.split("{% if add")[0], SPECIAL[PLAIN], "\n\nAssistant: "),
    ],
)
def test_a_template_without_a_generation_prompt_is_asked_as_its_history_is_written(
    template: str, tokens: list[str], opener: str
) -> None:
    tokenizer = byte_level(template, tokens)
    assert any("no generation prompt" in warning for warning in derive(tokenizer).warnings)
    form = derive(tokenizer, thinking=False)
    assert form.user_to_assistant == opener
    assert not any("no generation prompt" in warning for warning in form.warnings)


def test_a_bos_that_only_the_tokenizer_puts_there_is_warned_about() -> None:
    tokens = ["<bos>", *SPECIAL[CHATML]]
    form = derive(byte_level(CHATML, tokens, adds_bos=True), system_prompts=["Be brief."])
    [warning] = form.warnings
    assert "Prompts begin with <bos>" in warning
    assert derive(byte_level(CHATML, tokens)).warnings == ()
    assert derive(byte_level("{{ bos_token }}" + CHATML, tokens, adds_bos=True)).warnings == ()
    assert derive(byte_level(CHATML, tokens, adds_bos=True), pre_query_template="<bos>Ask: ").warnings == ()


@pytest.mark.parametrize("between", ["", " ", "\n"])
def test_two_bos_in_front_are_warned_about(between: str) -> None:
    tokens = ["<bos>", *SPECIAL[CHATML]]
    for adds_bos in (False, True):
        template = "{{ bos_token }}" + between + "<bos>" + CHATML
        form = derive(byte_level(template, tokens, adds_bos=adds_bos))
        assert form.warnings == ("Prompts begin with <bos> twice: the chat template writes it so.",)


@pytest.mark.parametrize("template", [LLAMA, CHATML, MOVING])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_there_is_one_bos_at_most(template: str, adds_bos: bool) -> None:
    tokenizer = byte_level(template, ["<bos>", *SPECIAL[template]], adds_bos=adds_bos)
    form = derive(tokenizer, system_prompts=["Be brief."])
    bos = tokenizer.convert_tokens_to_ids("<bos>")
    expected = int(adds_bos or "bos_token" in template)
    assert form.pre_query_ids.count(bos) == form.prefix("Be brief.").count(bos) == expected
    assert form.prompt(form.prefix(None), [[5]] * 4).count(bos) == expected
    assert form.pre_query.count("<bos>") == int("bos_token" in template)


@pytest.mark.parametrize(
    "template",
    [GEMMA, CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")],
)
def test_a_system_prompt_that_the_template_refuses_or_drops_is_refused(template: str) -> None:
    tokenizer = byte_level(template, SPECIAL[GEMMA])
    form = derive(tokenizer)
    assert not form.takes_system
    with pytest.raises(FormatError, match="no system prompt"):
        derive(tokenizer, system_prompts=["Be brief."])
    assert derive(tokenizer, system_prompts=[""]) == form


def test_a_system_prompt_with_a_special_token_in_it_is_refused_by_name() -> None:
    with pytest.raises(FormatError, match=r"'<\|eot_id\|>'"):
        derive(byte_level(LLAMA), system_prompts=["Write <|eot_id|> often."])


def test_folded_system_texts_are_told_from_those_with_a_place_of_their_own() -> None:
    folded, moved = (derive(byte_level(name), system_prompts=["Be brief."]) for name in (FOLDING, MOVING))
    assert folded.system_role == moved.system_role == "folded_into_user"
    assert folded.system_prefixes[0].last_user == ""
    assert not any("moves the system text" in warning for warning in folded.warnings)
    assert moved.system_prefixes[0].last_user == "<eos>[INST] Be brief.\n\n"
    assert any("moves the system text" in warning for warning in moved.warnings)
    assert derive(byte_level(PLAIN)).system_role == "supported"


def test_a_dated_template_is_frozen_to_the_day_it_is_given_or_today() -> None:
    dated = "Today is {{ strftime_now('%d %b %Y') }}.\n" + CHATML
    tokenizer = byte_level(dated, SPECIAL[CHATML])
    form = derive(tokenizer, date=datetime.date(2024, 7, 26))
    assert form.pre_query.startswith("Today is 26 Jul 2024.\n")
    assert form.date == "2024-07-26"
    today = derive(tokenizer)
    assert today.date is not None
    assert derive(tokenizer, date=datetime.date.fromisoformat(today.date)) == today


def test_a_template_that_asks_no_clock_keeps_its_constant_unless_a_date_is_given() -> None:
    constant = "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    tokenizer = byte_level(constant + "Today: {{ date_string }}\n" + CHATML, SPECIAL[CHATML])
    form = derive(tokenizer)
    assert (form.date, form.pre_query.splitlines()[0]) == (None, "Today: 26 Jul 2024")
    given_one = derive(tokenizer, date=datetime.date(2026, 1, 2))
    assert (given_one.date, given_one.pre_query.splitlines()[0]) == ("2026-01-02", "Today: 02 Jan 2026")


def test_a_date_leaves_templates_alone_that_depend_on_none() -> None:
    tokenizer = byte_level(CHATML)
    assert derive(tokenizer, date=datetime.date(2024, 7, 26)) == derive(tokenizer)


def test_a_template_that_takes_typed_parts_alone_is_served_with_them() -> None:
    parts = CHATML.replace("{{ m.content }}", "{% for part in m.content %}{{ part.text }}{% endfor %}")
    assert derive(byte_level(parts, SPECIAL[CHATML])).pre_query == "<|im_start|>user\n"


def test_a_template_that_demands_a_system_message_is_served_with_the_builds_own() -> None:
    demand = "{% if messages[0].role != 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    tokenizer = byte_level(demand + CHATML, SPECIAL[CHATML])
    with pytest.raises(FormatError, match=r"without a system message: set system_prompt"):
        derive(tokenizer)
    form = derive(tokenizer, system_prompts=["Be brief.", "Be long."])
    assert form.next_user == "<|im_end|>\n<|im_start|>user\n"
    for system in ("Be brief.", "Be long."):
        for count in (1, 3, 5):
            prompt = form.prompt(form.prefix(system), ids_of(tokenizer, form, LONGER[:count], system))
            assert prompt == rendered_ids(tokenizer, LONGER[:count], system)


def test_of_several_templates_the_default_one_counts() -> None:
    tokenizer = byte_level(CHATML)
    tokenizer.chat_template = {"default": CHATML, "tool_use": LLAMA}
    assert derive(tokenizer) == derive(byte_level(CHATML))
    tokenizer.chat_template = {"tool_use": LLAMA, "rag": CHATML}
    with pytest.raises(FormatError, match=r"chat templates .tool_use., .rag., .* model\.chat_template_name"):
        derive(tokenizer)


def test_tools_and_documents_that_nobody_gives_are_none() -> None:
    asks = (
        "{% if tools is not none and tools %}Tools.{% endif %}{% if documents %}{{ documents[0] }}{% endif %}"
    )
    assert derive(byte_level(asks + CHATML, SPECIAL[CHATML])) == derive(byte_level(CHATML))


def test_variables_reach_the_template() -> None:
    template = CHATML + "{% if add_generation_prompt and not thinking %}<think></think>{% endif %}"
    form = derive(byte_level(template, SPECIAL[CHATML]), template_variables={"thinking": True})
    assert form.user_to_assistant == "<|im_end|>\n<|im_start|>assistant\n"
    off = derive(byte_level(template, SPECIAL[CHATML]))
    assert off.user_to_assistant == form.user_to_assistant + "<think></think>"
    assert off.history_user_to_assistant == form.history_user_to_assistant


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}", "refuses later"),
        ("{{ messages | length }} messages\n", "otherwise"),
    ],
)
def test_a_template_that_can_do_one_turn_only_is_refused_for_more(change: str, reason: str) -> None:
    form = derive(byte_level(change + CHATML, SPECIAL[CHATML]))
    form.require(turns=1, answers=True)
    with pytest.raises(FormatError, match=reason):
        form.require(turns=2, answers=True)
    with pytest.raises(FormatError, match=reason):
        form.prompt(form.prefix(None), [[1], [2]])
    assert any(reason in warning for warning in form.warnings)


def test_later_turns_that_differ_with_a_system_prompt_are_refused_and_single_turns_are_not() -> None:
    change = "{% if messages[0].role == 'system' and messages | length > 3 %}Go on.{% endif %}"
    form = derive(byte_level(change + CHATML, SPECIAL[CHATML]), system_prompts=["Be brief."])
    form.prompt(form.prefix("Be brief."), [[1]])
    with pytest.raises(FormatError, match=r"otherwise with the system prompt 'Be brief\.'"):
        form.require(turns=2, answers=True)


def test_a_literal_pre_query_stands_even_if_the_template_is_of_no_use() -> None:
    form = derive(byte_level("{{ raise_exception('never') }}", ["<eos>"]), pre_query_template="User: ")
    assert (form.can_answer, form.pre_query) == (False, "User: ")
    assert any("never" in warning for warning in form.warnings)


def test_a_template_that_writes_nothing_before_the_user_is_refused() -> None:
    with pytest.raises(FormatError, match="nothing before the user's text"):
        derive(byte_level("{% for m in messages %}{{ m.content }}<eos>{% endfor %}", ["<eos>"]))


def test_a_literal_pre_query_wins_and_the_rest_is_derived() -> None:
    tokenizer = byte_level(DEFAULT_SYSTEM)
    form = derive(tokenizer, pre_query_template="<|im_start|>user\n")
    assert form.pre_query == "<|im_start|>user\n"
    assert tokenizer.convert_ids_to_tokens(form.pre_query_ids)[0] == "<|im_start|>"
    assert form.next_user == "<|im_end|>\n<|im_start|>user\n"
    assert form.can_answer
    assert not form.takes_system


@pytest.mark.parametrize("literal", ["<bos>Ask: ", "Ask: "])
def test_a_literal_pre_query_gets_the_one_bos_that_dialogues_begin_with(literal: str) -> None:
    tokenizer = byte_level(LLAMA)
    form = derive(tokenizer, pre_query_template=literal)
    assert form.pre_query_ids[0] == tokenizer.bos_token_id
    assert form.pre_query_ids.count(tokenizer.bos_token_id) == 1


def test_a_literal_pre_query_beside_a_system_prompt_is_refused() -> None:
    with pytest.raises(FormatError, match="pre_query_template"):
        derive(byte_level(CHATML), pre_query_template="<|im_start|>user\n", system_prompts=["Be brief."])


def test_without_a_chat_template_a_literal_pre_query_gives_instructions_alone() -> None:
    tokenizer = byte_level(None, ["<bos>", "<eos>"], adds_bos=True)
    form = derive(tokenizer, pre_query_template="Question: ")
    assert tokenizer.decode(form.pre_query_ids) == "<bos>Question:"
    form.require(turns=1, answers=False)
    with pytest.raises(FormatError, match="only_instruction"):
        form.require(turns=1, answers=True)


def test_without_a_chat_template_and_a_literal_pre_query_the_error_says_what_to_do() -> None:
    with pytest.raises(FormatError, match=r"no chat template.*instruct/chat model.*pre_query_template"):
        derive(byte_level(None, ["<eos>"]))


def test_a_template_that_refuses_a_user_message_is_an_error_with_its_reason() -> None:
    with pytest.raises(FormatError, match="never works"):
        derive(byte_level("{{ raise_exception('never works') }}", ["<eos>"]))


def test_a_system_prompt_that_was_not_derived_is_refused() -> None:
    with pytest.raises(FormatError, match="not derived"):
        derive(byte_level(CHATML)).prefix("Be brief.")


def test_a_format_survives_json_and_pickling() -> None:
    form = derive(byte_level(MOVING), system_prompts=["Be brief.", "Be long."])
    assert json.loads(json.dumps(form.to_dict())) == form.to_dict()
    assert pickle.loads(pickle.dumps(form)) == form


def test_a_saved_tokenizer_loads_with_the_ends_that_the_generation_config_lists(tmp_path: Path) -> None:
    byte_level(LLAMA).save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).eos_token_ids == ()
    for listed, expected in ((7, (7,)), ([7, 8], (7, 8)), (None, ())):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))
        loaded = load_tokenizer(str(tmp_path))
        assert loaded.eos_token_ids == expected
    assert derive(loaded.tokenizer) == derive(byte_level(LLAMA))


def test_a_template_in_a_file_of_its_own_or_the_processors_is_found(tmp_path: Path) -> None:
    byte_level(None, SPECIAL[CHATML]).save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).tokenizer.chat_template is None
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": CHATML}))
    assert derive(load_tokenizer(str(tmp_path)).tokenizer).pre_query == "<|im_start|>user\n"
    (tmp_path / "chat_template.jinja").write_text(CHATML.replace("<|im_start|>", "<|im_start|> "))
    assert derive(load_tokenizer(str(tmp_path)).tokenizer).pre_query == "<|im_start|> user\n"


def test_a_model_that_is_not_there_is_an_error_that_names_it_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.*model\.name"):
        load_tokenizer(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"can't be loaded"):
        load_tokenizer(str(tmp_path))


def test_importing_the_module_imports_nothing_heavy() -> None:
    code = (
        "import sys, magpie_ray.chat_format; "
        "print([m for m in ('torch', 'vllm', 'ray', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


FOLDER = os.environ.get("MAGPIE_RAY_CHAT_TEMPLATES")
FAMILIES = sorted(Path(FOLDER).glob("*.json")) if FOLDER else []


published = pytest.mark.parametrize("path", FAMILIES, ids=lambda path: path.stem)


@cache
def published_family(path: Path) -> tuple[dict[str, Any], Any, ChatFormat]:
    """What is known of it, its tokenizer, and what was derived, with a system text where it takes one."""
    family = json.loads(path.read_text(encoding="utf-8"))
    names = {name: family[name] for name in ("bos_token", "eos_token") if family[name]}
    tokenizer = byte_level(family["chat_template"], family["special_tokens"], **names)
    systems = ["SYS"] if family["prefix_with_system"] else []
    return family, tokenizer, derive(tokenizer, system_prompts=systems)


@pytest.mark.skipif(not FAMILIES, reason="MAGPIE_RAY_CHAT_TEMPLATES names no folder of templates")
@published
def test_published_templates_derive_exactly(path: Path) -> None:
    family, _, form = published_family(path)
    assert form.pre_query == family["prefix_no_system"]
    assert form.user_to_assistant == family["user_to_assistant"]
    assert form.next_user == family["next_user_prefix"]
    assert form.history_user_to_assistant == family["history_user_to_assistant"]
    expected = [family["prefix_with_system"]] if family["prefix_with_system"] else []
    assert [entry.text for entry in form.system_prefixes] == expected
    assert form.system_role == family["system_role"]
    assert form.multi_turn_problem is None
    strips = {role for role in ("user", "assistant") if family["strips_by_role"][role]}
    assert set(form.trimmed_roles) == strips


@pytest.mark.skipif(not FAMILIES, reason="MAGPIE_RAY_CHAT_TEMPLATES names no folder of templates")
@published
def test_markers_of_published_templates_are_text_where_messages_spell_them_out(path: Path) -> None:
    _, tokenizer, form = published_family(path)
    check_spelled_markers(tokenizer, form)


@pytest.mark.skipif(not FAMILIES, reason="MAGPIE_RAY_CHAT_TEMPLATES names no folder of templates")
@published
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_prompts_of_published_templates_are_the_whole_dialogue(path: Path, turns: int) -> None:
    family, tokenizer, form = published_family(path)
    marks = [*family["special_tokens"], *family["plain_markers"], "User:", "Assistant:"]
    message = text.filter(lambda content: not any(mark in content for mark in marks))

    def check(contents: list[str]) -> None:
        for system in [None, *(prefix.system_prompt for prefix in form.system_prefixes)]:
            prompt = form.prompt(form.prefix(system), ids_of(tokenizer, form, contents, system))
            whole = rendered_ids(tokenizer, contents, system)
            moved = system is not None and form.system_prefixes[0].last_user
            # Markup that is plain text may join with the words beside it.
            if moved or form.stop_strings:
                assert tokenizer.decode(prompt) == tokenizer.decode(whole)
            else:
                assert prompt == whole

    @settings(max_examples=10, deadline=None)
    @given(st.lists(message, min_size=2 * turns - 1, max_size=2 * turns - 1))
    def any_messages(contents: list[str]) -> None:
        check(contents)

    contents = LONGER[: 2 * turns - 1]
    check(contents)
    prompt = form.prompt(form.prefix(None), ids_of(tokenizer, form, contents))
    assert prompt == rendered_ids(tokenizer, contents)
    any_messages()
