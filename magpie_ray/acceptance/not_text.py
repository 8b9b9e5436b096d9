"""Messages that are not text: broken encodings, control characters, mixed scripts."""

import re

from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance
from magpie_ray.config.acceptance import NotTextRule

# All bytes of UTF-8 text: no C0 control but tab, line feed, form feed and carriage return, no DEL.
_TEXT_BYTES = bytes([0x09, 0x0A, 0x0C, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])
# C1 controls but "next line", lone surrogates, private use but Apple's logo, noncharacters; and the first
# bytes of their UTF-8.
_NO_TEXT = re.compile(
    "[\x80-\x84\x86-\x9f\ud800-\udfff\ue000-\uf8fe\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]"
)
_NO_TEXT_BYTES = (b"\xc2", b"\xed", b"\xee", b"\xef", b"\xf3", b"\xf4")
# UTF-8 read as Latin-1 or Windows-1252: the lead byte of a character of two or three bytes, then the others.
_TRAIL = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_MOJIBAKE = re.compile(f"[ÂÃÄÅÎÏÐÑ×ØÙ][{_TRAIL}]|[à-ï][{_TRAIL}]{{2}}")
_MOJIBAKE_LEADS = ("Ã", "Â", "â€", "Ð", "Ñ", "Ø", "Ù", "×", "Î", "Ï", "ï¼", "ã€", "Å", "Ä", "ç")
# Neighbouring letters that no language writes in one word. Latin may touch Chinese, Japanese, Korean and
# Thai, which embed Latin words without a space.
_LATIN, _CYRILLIC, _OTHER, _EAST = "A-Za-zß-ɏ", "Ѐ-ӿ", "ء-يऀ-ॿঀ-৿஀-௿", "぀-ヿ一-鿿가-힣"
_MIXED = re.compile(
    f"[{_LATIN}][{_CYRILLIC}{_OTHER}]|[{_CYRILLIC}][{_LATIN}{_OTHER}{_EAST}]"
    f"|[{_OTHER}][{_LATIN}{_CYRILLIC}{_EAST}]|[{_EAST}][{_CYRILLIC}{_OTHER}]"
)
# Text in Cyrillic, Arabic or a script of India contains one of these bytes.
_MIXED_BYTES = (b"\xd0", b"\xd1", b"\xd8", b"\xd9", b"\xe0")
# Characters at the beginning of a message in which mojibake and mixed scripts are counted.
_SEARCHED = 400


# Verdicts give this reason, too, to a message with tokens that the tokenizer does not have.
NOT_TEXT = "not_text"


def make_rule(thresholds: NotTextRule, _: RuleContext) -> Rule:
    """Characters that no text has, or more doubtful ones than the thresholds allow."""

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        text = utterance.text
        data = text.encode("utf-8", "surrogatepass")
        if data.translate(None, _TEXT_BYTES):
            return "not_text"
        if len(data) == len(text):
            return None
        if any(byte in data for byte in _NO_TEXT_BYTES) and (
            text.count("\ufffd") > thresholds.replacement_characters or _NO_TEXT.search(text)
        ):
            return "not_text"
        beginning = text[:_SEARCHED]
        if (
            any(lead in beginning for lead in _MOJIBAKE_LEADS)
            and len(_MOJIBAKE.findall(beginning)) > thresholds.mojibake
        ):
            return "not_text"
        if not any(byte in data for byte in _MIXED_BYTES):
            return None
        return "not_text" if len(_MIXED.findall(beginning)) > thresholds.script_changes else None

    return rule


REMEDIES = {
    "not_text": "lower sampling.{role}.temperature or top_p, which let in rare tokens; where they "
    "are meant, raise the thresholds of acceptance.rules.not_text"
}
