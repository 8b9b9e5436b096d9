"""Messages in another language than the wanted one: the whole message counts, and what belongs in it."""

import time
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.acceptance import Dialogue, Rule, Utterance, build_rules
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.types import Message, Role, SystemPrompt

ENGLISH = (
    "A good night's sleep begins long before you go to bed. Try to get up at the same hour every morning, "
    "because your body keeps its own clock and is easily confused. Bright light after breakfast helps, and "
    "so does a short walk in the fresh air. In the evening, put the phone away and read a few pages instead. "
)
FRENCH = (
    "Une bonne nuit de sommeil se prépare bien avant l'heure du coucher. Essayez de vous lever chaque matin "
    "à la même heure, car le corps suit sa propre horloge. Le soir, rangez le téléphone et lisez un livre. "
)
SPANISH = (
    "Una buena noche de sueño comienza mucho antes de acostarse. Procure levantarse cada mañana a la misma "
    "hora, porque el cuerpo sigue su propio reloj. Por la tarde, guarde el teléfono y lea unas páginas. "
)
RUSSIAN = (
    "Хороший сон начинается задолго до того, как вы ложитесь в постель. Старайтесь вставать каждое утро в "
    "одно и то же время, потому что у тела есть свои часы. Вечером уберите телефон и почитайте книгу. "
)
CHINESE = (
    "良好的睡眠早在上床之前就开始了。每天早上尽量在同一时间起床，因为身体有自己的生物钟，很容易被打乱。早餐后晒晒太阳、"
    "在户外散散步都有帮助。到了晚上，请把手机收起来，读几页书。卧室要保持安静、凉爽和黑暗。"
)
TEXTS = {"en": ENGLISH, "fr": FRENCH, "es": SPANISH, "ru": RUSSIAN, "zh": CHINESE}


@cache
def rule(*wanted: str, **thresholds: Any) -> Rule:
    config = {"rules": {"language": {"is": [*wanted], **thresholds}}}
    return build_rules(AcceptanceConfig.model_validate(config))["language"]


def rejects(rule: Rule, text: str, *, role: Role = "assistant", asked: str | None = None) -> bool:
    said = Message(role="user", text=asked or "", finish_reason="stop", prompt_tokens=1, completion_tokens=1)
    utterance = Utterance(role=role, text=text, token_ids=(), finish_reason="stop")
    return rule(utterance, Dialogue(messages=(said,) if asked else ())) == "language"


@pytest.mark.parametrize("repeats", [1, 2, 8])
@pytest.mark.parametrize("between", ["", "\n\n"])
@pytest.mark.parametrize(("first", "second"), [(a, b) for a in TEXTS for b in TEXTS if a != b])
def test_a_message_that_turns_to_another_language_half_way_is_rejected(
    first: str, second: str, between: str, repeats: int
) -> None:
    text = TEXTS[first] * repeats + between + TEXTS[second] * repeats
    assert rejects(rule(first), text)
    assert rejects(rule(second), text)
    assert not rejects(rule(first, second), text)


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("repeats", [1, 2, 8, 40])
def test_a_message_in_the_wanted_language_is_accepted_whatever_its_length(
    language: str, repeats: int
) -> None:
    assert not rejects(rule(language), TEXTS[language] * repeats)
    others = [other for other in TEXTS if other != language]
    assert rejects(rule(*others), TEXTS[language] * repeats)


@pytest.mark.parametrize("other", [RUSSIAN * 2, CHINESE * 2])
def test_another_script_in_the_middle_is_found(other: str) -> None:
    assert rejects(rule("en"), ENGLISH * 2 + other + ENGLISH * 2)


@pytest.mark.parametrize(
    "quoted",
    [f"“{FRENCH}”", f"« {FRENCH}»", f'"{FRENCH}"', f"> {FRENCH}\n", f"„{FRENCH}“", f"「{CHINESE}」"],
)
def test_quotes_may_be_in_another_language(quoted: str) -> None:
    assert not rejects(rule("en"), ENGLISH + "\n" + quoted)
    assert not rejects(rule("en"), ENGLISH + "\n" + quoted + "\n" + ENGLISH)


def test_a_message_that_is_one_quote_has_the_language_of_the_quote() -> None:
    assert rejects(rule("en"), f"“{FRENCH}”")


@pytest.mark.parametrize(
    "code",
    [
        "```\n" + ENGLISH * 2 + "\n```",
        "```\n" + ENGLISH * 2,
        f"`{ENGLISH}`",
        "$$\\text{the kinetic energy of the body is} \\frac{1}{2} m v^2 \\text{ and nothing else}$$",
        "\\[ \\text{where the sum is over all of the neighbours of the node} \\sum_{i} x_{i} \\]",
    ],
)
def test_code_and_formulas_have_no_language(code: str) -> None:
    assert not rejects(rule("fr"), f"{FRENCH}\n{code}")
    assert not rejects(rule("zh"), f"{CHINESE}\n{code}\n{CHINESE}")


@pytest.mark.parametrize(
    "request_",
    [
        "Translate this into French: A good night's sleep begins long before you go to bed.",
        "Write a short note in French about good sleep, please.",
        "What is the French translation of this paragraph?",
    ],
)
def test_an_answer_may_be_in_the_language_that_was_asked_for(request_: str) -> None:
    assert not rejects(rule("en"), FRENCH, asked=request_)
    assert not rejects(rule("en"), f"Here you are:\n\n{FRENCH}", asked=request_)
    assert not rejects(rule("en"), f"{request_}\n\n{FRENCH}", role="user")


def test_a_request_for_a_translation_counts_only_in_a_wanted_language() -> None:
    assert rejects(rule("en"), "Traduis ce texte en anglais, s'il te plaît : " + FRENCH, role="user")
    assert not rejects(rule("fr"), "Traduis ce texte : " + ENGLISH, role="user")
    assert rejects(rule("en"), FRENCH, asked="How do French people sleep?")


def test_names_and_terms_of_another_language_are_no_other_language() -> None:
    names = "Jean-Baptiste de La Salle, Wolfgang von Kempelen and 毛泽东 (Mao Zedong) never met. "
    assert not rejects(rule("en"), ENGLISH + names + ENGLISH)
    assert not rejects(rule("zh"), CHINESE + "例如 Python、JavaScript 和 machine learning。" + CHINESE)


def test_a_prompt_has_languages_of_its_own() -> None:
    languages = {"by_prompt": {"french": "fr"}, "is": "en"}
    rules = build_rules(AcceptanceConfig.model_validate({"rules": {"language": languages}}))
    french = Dialogue(system_prompt=SystemPrompt(key="french", text="Parle français.", weight=1.0))
    said = Utterance(role="user", text=FRENCH + ENGLISH, token_ids=(), finish_reason="stop")
    assert rules["language"](said, french) == "language"
    only_french = Utterance(role="user", text=FRENCH, token_ids=(), finish_reason="stop")
    assert rules["language"](only_french, french) is None
    assert rules["language"](only_french, Dialogue()) == "language"


def test_the_detector_is_believed_from_min_confidence_on() -> None:
    assert not rejects(rule("en", min_confidence=1.0), "Ein Ei kocht man zehn Minuten, so wird es hart.")
    assert rejects(rule("en"), "Ein Ei kocht man zehn Minuten, so wird es hart.")


@pytest.mark.parametrize(
    "text", ["法国的首都是巴黎。", "富士山です。高さは。", "Кошка спит дома.", "Ja, natürlich."]
)
def test_a_message_of_few_letters_in_any_script_has_no_language(text: str) -> None:
    assert not rejects(rule("en"), text)
    assert not rejects(rule("en"), f"“{text}”")
    assert rejects(rule("en", min_letters=1, min_confidence=0.1), text)


@pytest.mark.parametrize(
    "opening", ["`", "```", "$$", "\\[", "\\(", "“", "„", "«", "「", '"', "> ", "http://"]
)
def test_openings_without_an_end_keep_the_rule_no_longer_busy_than_their_length(opening: str) -> None:
    def seconds(times: int) -> float:
        started = time.process_time()
        rejects(rule("fr"), f"{ENGLISH}{opening * times}{ENGLISH}")
        return time.process_time() - started

    assert seconds(32_000) < 20 * max(0.05, seconds(4_000))


@given(st.text(), st.sampled_from(["", " ", "\ud800", "ab ", "。", "\n"]), st.integers(0, 200))
def test_any_text_gets_a_verdict(text: str, piece: str, times: int) -> None:
    assert rejects(rule("en"), text + piece * times + text) in (True, False)
