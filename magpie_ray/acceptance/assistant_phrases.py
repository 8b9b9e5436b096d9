"""Phrases by which rules recognize an assistant: assistant_phrases.yaml, one block for each language.

Owns that file. Invariants: a process reads it once, when a rule that needs it is built; text is compared as
`plain` returns it.
"""

import re
from collections.abc import Collection
from functools import cache
from importlib.resources import files

import yaml

# Characters at the beginning of a message that say whose voice it is.
BEGINNING = 300

_PART = re.compile(r"<(\w+)>")
# Groups are plain in the file, for its readers. Groups that capture nothing match faster.
_GROUP = re.compile(r"\((?!\?)")


def expression(kind: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """One regular expression that matches any phrase of that kind, in any language."""
    return re.compile(_GROUP.sub("(?:", "|".join(phrases(kind))), flags)


def phrases(kind: str, languages: Collection[str] | None = None) -> list[str]:
    """All phrases of that kind, such as "offers", with their parts filled in. None: of every language."""
    return [
        _filled_in(phrase, block.get("parts", {}))
        for language, block in _languages().items()
        if languages is None or language in languages
        for phrase in block.get(kind, ())
    ]


def plain(text: str) -> str:
    """The text in lower case, with straight apostrophes."""
    return text.lower().replace("’", "'")


def asks(text: str) -> bool:
    """Whether the text has a question mark, of any script."""
    return "?" in text or "？" in text or "؟" in text


@cache
def _languages() -> dict[str, dict[str, dict[str, str | list[str]]]]:
    source = files(__package__).joinpath("assistant_phrases.yaml").read_text(encoding="utf-8")
    # libyaml takes 5 ms, Python 80. Some builds of PyYAML come without libyaml.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    languages: dict[str, dict[str, dict[str, str | list[str]]]] = loader(source).get_single_data()
    return languages


def _filled_in(phrase: str, parts: dict[str, str | list[str]]) -> str:
    def part(name: re.Match[str]) -> str:
        value = parts[name[1]]
        return _filled_in(value if isinstance(value, str) else f"({'|'.join(value)})", parts)

    return _PART.sub(part, phrase)
