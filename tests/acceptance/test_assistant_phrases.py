"""The phrases: by language, of known kinds, and each a regular expression."""

import re
from importlib.resources import files
from typing import Any

import pytest
import yaml

from magpie_ray.acceptance.assistant_phrases import expression, phrases
from magpie_ray.config.acceptance import LANGUAGES

KINDS = (
    "offers",
    "replies",
    "refusals",
    "answer_forms",
    "closings",
    "alternatives",
    "announcements",
    "discussed",
    "answer_labels",
    "question_labels",
    "bare_labels",
    "translations",
)


@pytest.fixture(scope="module")
def blocks() -> dict[str, dict[str, Any]]:
    source = files("magpie_ray.acceptance").joinpath("assistant_phrases.yaml").read_text(encoding="utf-8")
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(source)
    return loaded


def test_each_block_is_a_languages_and_has_known_kinds_alone(blocks: dict[str, dict[str, Any]]) -> None:
    assert set(blocks) <= LANGUAGES
    for language, block in blocks.items():
        assert set(block) <= {"parts", *KINDS}, language


def test_each_part_is_used_in_its_language(blocks: dict[str, dict[str, Any]]) -> None:
    for language, block in blocks.items():
        for part in block.get("parts", {}):
            assert f"<{part}>" in str(block), (language, part)


@pytest.mark.parametrize("kind", KINDS)
def test_phrases_are_regular_expressions_in_lower_case_with_their_parts_filled_in(kind: str) -> None:
    for phrase in phrases(kind):
        re.compile(phrase)
        assert not re.search(r"<\w+>", phrase)
        assert phrase.lower() == phrase
        assert "’" not in phrase or kind == "discussed"


def test_an_expression_matches_the_phrases_of_every_language() -> None:
    offers = expression("offers")
    assert offers.match("hi! how can i help you today?")
    assert offers.match("hallo, wie kann ich ihnen heute helfen?")
    assert offers.match("你好！有什么可以帮您的吗？")
    assert not offers.match("how can i help my neighbour?")
