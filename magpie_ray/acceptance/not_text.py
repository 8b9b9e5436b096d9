"""Messages that are not text: broken encodings, control characters, salads of scripts."""

import re

from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance

# All bytes of UTF-8 text: no C0 control but tab, line feed, form feed and carriage return, no DEL.
_TEXT_BYTES = bytes([0x09, 0x0A, 0x0C, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])
# C1 controls but "next line", lone surrogates, private use (but Apple's logo), noncharacters; and the bytes
# that these begin with.
_NO_TEXT = re.compile(
    "[\x80-\x84\x86-\x9f\ud800-\udfff\ue000-\uf8fe\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]"
)
_NO_TEXT_BYTES = (b"\xc2", b"\xed", b"\xee", b"\xef", b"\xf3", b"\xf4")
# UTF-8 read as Latin-1 or Windows-1252: the lead byte of a character of two or three, and what follows it.
_TRAIL = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_MOJIBAKE = re.compile(f"[ÂÃÄÅÎÏÐÑ×ØÙ][{_TRAIL}]|[à-ï][{_TRAIL}]{{2}}")
_MOJIBAKE_LEADS = ("Ã", "Â", "â€", "Ð", "Ñ", "Ø", "Ù", "×", "Î", "Ï", "ï¼", "ã€", "Å", "Ä", "ç")
# Letters next to each other that no language writes in one word. Latin stands beside Chinese, Japanese,
# Korean and Thai, which have words in it without a space.
_LATIN, _CYRILLIC, _OTHER, _EAST = "A-Za-zß-ɏ", "Ѐ-ӿ", "ء-يऀ-ॿঀ-৿஀-௿", "぀-ヿ一-鿿가-힣"
_SALAD = re.compile(
    f"[{_LATIN}][{_CYRILLIC}{_OTHER}]|[{_CYRILLIC}][{_LATIN}{_OTHER}{_EAST}]"
    f"|[{_OTHER}][{_LATIN}{_CYRILLIC}{_EAST}]|[{_EAST}][{_CYRILLIC}{_OTHER}]"
)
# Bytes of which text in Cyrillic, Arabic or a script of India holds one.
_SALAD_BYTES = (b"\xd0", b"\xd1", b"\xd8", b"\xd9", b"\xe0")
# So much of a message, from its beginning, is searched for what takes many occurrences to be sure.
_SEARCHED = 400


def not_text(*, replacement_characters: int, mojibake: int, script_changes: int) -> Rule:
    """Characters that no text has, or more of the doubtful than the thresholds allow.

    replacement_characters: U+FFFD, which stands for bytes that are no UTF-8. mojibake: pairs such as "Ã¼".
    script_changes: letters of different scripts inside a word.
    """

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        text = utterance.text
        data = text.encode("utf-8", "surrogatepass")
        if data.translate(None, _TEXT_BYTES):
            return "not_text"
        if len(data) == len(text):
            return None
        if any(byte in data for byte in _NO_TEXT_BYTES) and (
            text.count("\ufffd") > replacement_characters or _NO_TEXT.search(text)
        ):
            return "not_text"
        beginning = text[:_SEARCHED]
        if (
            any(lead in beginning for lead in _MOJIBAKE_LEADS)
            and len(_MOJIBAKE.findall(beginning)) > mojibake
        ):
            return "not_text"
        mixes = any(byte in data for byte in _SALAD_BYTES)
        return "not_text" if mixes and len(_SALAD.findall(beginning)) > script_changes else None

    return rule
