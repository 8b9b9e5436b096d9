"""What rows of a source start with: the prompts that a worker asks with, for every chat template there is."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.chat_format import ChatFormat
from magpie_ray.engine.protocol import Request
from magpie_ray.engine.simulated.engine import Answer
from tests.chat_format.families import FAMILIES as WRITTEN
from tests.chat_format.families import Family
from tests.chat_format.test_derivation import FAMILIES as PUBLISHED
from tests.chat_format.test_derivation import dialogue, published, published_family
from tests.chat_format.test_families import tokenizer_of
from tests.support.builds import tokenizer_folder
from tests.worker.test_answers import answered, spec_of

ONE_TURN, THREE_TURNS = ["Why is the sky blue?"], ["Is it? 日本", "Yes.\n- a\n- b", "Go on", "It is.", "Why?"]
# Two rows of each kind, so that prefixes are made for several prompts at once.
SYSTEMS = [None, "You are brief.", "You know it all:\n1. The one"]


def asked_of(
    folder: Path, tokenizer: Any, rows: list[list[dict[str, str]]], thinking: bool = False
) -> tuple[ChatFormat, list[list[int]]]:
    """The prompts with which a worker asks about these rows, in their order, and the format they follow."""
    prompts = list[list[int]]()

    def respond(request: Request) -> Answer:
        prompts.append(list(request.prompt_token_ids))
        return tokenizer.encode("Yes", add_special_tokens=False), "stop"

    model = {"name": tokenizer_folder(folder / "model", tokenizer), "thinking": thinking}
    acceptance = {"min_accept_rate": 0, "max_attempts": 1}
    spec = spec_of(folder, [{"messages": row} for row in rows], model=model, acceptance=acceptance)
    answered(spec, respond)
    return spec.build_spec.form, prompts


def rendered(
    tokenizer: Any,
    form: ChatFormat,
    row: list[dict[str, str]],
    *,
    typed: bool = False,
    thinking: bool | None = None,
) -> list[int]:
    """The ids that the model's own template gives to the row. typed: it takes contents in typed parts."""
    messages: list[dict[str, Any]] = [
        message | {"content": [{"type": "text", "text": message["content"]}]} if typed else message
        for message in row
    ]
    variables = {} if thinking is None else {"enable_thinking": thinking, "thinking": thinking}
    dated = {"strftime_now": datetime.date.fromisoformat(form.date).strftime} if form.date else {}
    return list(
        tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, **variables, **dated
        )
    )


def is_plain(form: ChatFormat, row: list[dict[str, str]]) -> bool:
    """Whether markup that is plain text may join with the words of the row beside it: ids then differ."""
    has_system = row[0]["role"] == "system"
    return bool(form.stop_strings or (has_system and any(one.last_user for one in form.system_prefixes)))


def rows_for(*, systems: bool, turns: bool) -> list[list[dict[str, str]]]:
    kinds = [ONE_TURN, THREE_TURNS] if turns else [ONE_TURN]
    return [dialogue(texts, system) for system in (SYSTEMS if systems else [None]) for texts in kinds]


@pytest.mark.skipif(not PUBLISHED, reason="MAGPIE_RAY_CHAT_TEMPLATES names no folder of templates")
@published
def test_a_worker_asks_with_the_ids_of_a_published_template(path: Path, tmp_path: Path) -> None:
    family, tokenizer, _ = published_family(path)
    rows = rows_for(systems=family["prefix_with_system"] is not None, turns=True)
    form, prompts = asked_of(tmp_path, tokenizer, rows)
    assert len(prompts) == len(rows)
    for row, prompt in zip(rows, prompts, strict=True):
        whole = rendered(tokenizer, form, row)
        if is_plain(form, row):
            assert tokenizer.decode(prompt) == tokenizer.decode(whole)
        else:
            assert prompt == whole


@pytest.mark.parametrize(
    ("family", "thinking"),
    [
        pytest.param(family, thinking, id=f"{family.name}, {'thinking' if thinking else 'plain'}")
        for family in WRITTEN
        for thinking in ([False, True] if family.thinking is not None else [False])
    ],
)
def test_a_worker_asks_with_the_ids_of_any_other_template(
    family: Family, thinking: bool, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(family)
    rows = rows_for(systems=bool(family.system), turns=family.turns)
    form, prompts = asked_of(tmp_path, tokenizer, rows, thinking)
    assert len(prompts) == len(rows)
    typed = family.name == "typed parts alone"
    for row, prompt in zip(rows, prompts, strict=True):
        whole = rendered(tokenizer, form, row, typed=typed, thinking=thinking)
        if form.user_to_assistant != family.generation and tokenizer.decode(whole).endswith(
            family.generation
        ):
            # The template has no switch: what it lacks before an answer without reasoning stands there, too.
            asks = tokenizer.decode(whole).removesuffix(family.generation)
            assert tokenizer.decode(prompt) == asks + form.user_to_assistant
            assert form.user_to_assistant in (family.plain, family.history)
        elif is_plain(form, row):
            assert tokenizer.decode(prompt) == tokenizer.decode(whole)
        else:
            assert prompt == whole
