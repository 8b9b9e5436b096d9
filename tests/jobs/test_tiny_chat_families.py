"""Chat formats of other families that tiny_chat is trained on, derived from tokenizers with their markers."""

from functools import cache
from importlib.resources import files
from typing import Any

import pytest

from jobs.tiny_chat.families import FAMILIES
from magpie_ray.chat_format import derivation

SYSTEM = "Be kind."
TEXTS = ("What is the capital of Spain?", "The capital of Spain is Madrid.", "And Peru?")

# What stands before the user's text, the same with a system prompt, between user and assistant, before the
# next user; what ends their messages.
EXPECTED = {
    "chatml": (
        "<|im_start|>user\n",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n<|im_start|>user\n",
        ["<|im_end|>", "<|endoftext|>"],
        ["<|im_end|>", "<|endoftext|>"],
    ),
    "gemma": (
        "<bos><start_of_turn>user\n",
        "<bos><start_of_turn>user\nBe kind.\n\n",
        "<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>\n<start_of_turn>user\n",
        ["<end_of_turn>", "<eos>"],
        ["<end_of_turn>", "<eos>"],
    ),
    "deepseek": (
        "<｜begin▁of▁sentence｜><｜User｜>",
        "<｜begin▁of▁sentence｜>Be kind.<｜User｜>",
        "<｜Assistant｜>",
        "<｜end▁of▁sentence｜><｜User｜>",
        ["<｜Assistant｜>", "<｜end▁of▁sentence｜>"],
        ["<｜end▁of▁sentence｜>"],
    ),
    "mistral": (
        "<s>[INST] ",
        "<s>[INST] Be kind.\n\n",
        "[/INST]",
        "</s>[INST] ",
        ["[/INST]", "</s>"],
        ["</s>"],
    ),
    "qwen3": (
        "<|im_start|>user\n",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n<|im_start|>user\n",
        ["<|im_end|>", "<|endoftext|>"],
        ["<|im_end|>", "<|endoftext|>"],
    ),
}
MOVES_SYSTEM = "The template moves the system text to the last user message"


@cache
def tokenizer_of(family: str) -> Any:
    from jobs.tiny_chat.tokenizer import with_markers

    bundled = derivation.load_tokenizer(str(files("magpie_ray").joinpath("tiny_chat"))).tokenizer
    return with_markers(bundled, FAMILIES[family])


def derived(family: str) -> derivation.ChatFormat:
    tokenizer = tokenizer_of(family)
    ends = [tokenizer.convert_tokens_to_ids(end) for end in FAMILIES[family].ends]
    return derivation.derive(tokenizer, system_prompts=[SYSTEM], eos_token_ids=ends)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_format_is_the_familys(family: str) -> None:
    form, tokenizer = derived(family), tokenizer_of(family)
    assert EXPECTED[family] == (
        form.pre_query,
        form.prefix_text(SYSTEM),
        form.user_to_assistant,
        form.next_user,
        tokenizer.convert_ids_to_tokens(form.user_stop_token_ids),
        tokenizer.convert_ids_to_tokens(form.assistant_stop_token_ids),
    )
    assert form.stop_strings == ()
    assert [warning.startswith(MOVES_SYSTEM) for warning in form.warnings] == [True] * (family == "mistral")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("system_prompt", [None, SYSTEM])
def test_a_prompt_is_the_whole_dialogue(family: str, system_prompt: str | None) -> None:
    form, tokenizer = derived(family), tokenizer_of(family)
    said = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(TEXTS)]
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    whole = tokenizer.apply_chat_template(system + said, add_generation_prompt=True, return_dict=False)
    messages = []
    for message in said:
        # The model writes the space between a marker and the message; system text ends without one.
        spaced = family == "mistral" and (message["role"] == "assistant" or not system_prompt)
        text = " " * spaced + message["content"]
        messages.append(tokenizer.encode(text, add_special_tokens=False))
    prompt = form.prompt(form.prefix(system_prompt), messages)
    assert tokenizer.decode(prompt) == tokenizer.decode(whole)
    if not any(warning.startswith(MOVES_SYSTEM) for warning in form.warnings) or not system_prompt:
        assert prompt == whole


@pytest.mark.parametrize("family", FAMILIES)
def test_words_keep_their_tokens_and_no_marker_of_tiny_chat_is_left(family: str) -> None:
    bundled = derivation.load_tokenizer(str(files("magpie_ray").joinpath("tiny_chat"))).tokenizer
    tokenizer = tokenizer_of(family)
    words = {token for token in bundled.get_vocab() if token not in bundled.get_added_vocab()}
    more = set(tokenizer.get_vocab()) - words - set(FAMILIES[family].specials) - set(FAMILIES[family].marks)
    assert {token.removeprefix("Ġ") for token in more} <= words
    assert bool(more) == FAMILIES[family].spaced
    for text in TEXTS:
        assert tokenizer.tokenize(text) == bundled.tokenize(text)
