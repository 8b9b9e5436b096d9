"""Instructions with planted near-copies, and with look-alikes that are none.

Invariant: the same seed makes the same texts.
"""

import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

_OPENINGS = (
    "Write a {} about",
    "Explain how to {} when",
    "What is the difference between {} and",
    "Can you help me {} with",
    "Give me a list of {} for",
    "I am trying to {} but",
    "How does the {} affect",
    "Summarize the {} of",
    "Describe the {} in",
    "Create a {} plan for",
    "Why do people {} before",
    "Translate this {} about",
    "Imagine you are a {} who lives near",
    "Compare the {} of",
    "Suggest a {} that works with",
)
_SMALL = (
    "the a of in to and for with on from by that is are which as at how my your this their into about over "
    "between without under while after before because if not can should"
)
# Short templates with one key word or number: two fillings are not near-copies.
_TEMPLATES = (
    "What is the capital of {}?",
    "Write a haiku about {}.",
    "How do I cook {}?",
    "Who invented {}?",
    "Tell me a joke about {}.",
    "What does {} mean in plain English?",
    "How long does it take to learn {}?",
    "List the main advantages and disadvantages of {} for a small company.",
)
_NUMBER_TEMPLATES = (
    "What is {} x {}?",
    "Is {} divisible by {}?",
    "A shop sells {} apples on Monday and {} on Tuesday. How many is that?",
    "Write a story in exactly {} words about a cat that is {} years old.",
    "Convert {} miles to km with {} decimals.",
)
_ADDED = ("please", "really", "very", "also", "just", "detailed", "simple", "maybe", "quickly", "again")


@dataclass(frozen=True, kw_only=True, slots=True)
class Planted:
    """texts: by row_id. copies: row_id of a near-copy -> row_id of its original. look_alikes: likewise."""

    texts: tuple[str, ...]
    copies: dict[int, int]
    look_alikes: dict[int, int]


def planted_texts(count: int, *, copies: int, look_alikes: int, seed: int = 0) -> Planted:
    """`count` texts, so many of them near-copies of others and so many look-alikes, in a random order."""
    rng = random.Random(seed)
    words = _Words(rng)
    originals = words.distinct(lambda: (words.instruction(),), count - copies - 2 * look_alikes)
    couples = words.distinct(words.look_alikes, look_alikes)
    texts = [text for group in (*originals, *couples) for text in group]
    sources = rng.sample(range(len(originals)), copies)
    texts += [near_copy(texts[source], rng) for source in sources]
    order = rng.sample(range(count), count)
    place = {old: new for new, old in enumerate(order)}
    first = len(originals)
    return Planted(
        texts=tuple(texts[old] for old in order),
        copies={place[first + 2 * look_alikes + i]: place[source] for i, source in enumerate(sources)},
        look_alikes={place[first + 2 * i + 1]: place[first + 2 * i] for i in range(look_alikes)},
    )


class _Words:
    """Pseudo-English: small words, and nouns that are as often as Zipf has it."""

    def __init__(self, rng: random.Random, vocabulary: int = 20_000) -> None:
        self._rng, self._made, self._small = rng, set[str](), _SMALL.split()
        onsets = [
            "b",
            "br",
            "c",
            "ch",
            "d",
            "dr",
            "f",
            "g",
            "gr",
            "h",
            "l",
            "m",
            "n",
            "p",
            "pr",
            "r",
            "s",
            "st",
            "t",
            "tr",
            "v",
            "w",
        ]
        vowels, codas = ["a", "e", "i", "o", "u", "ea", "ou"], ["", "n", "r", "l", "s", "t", "nd", "ck", "m"]
        made = dict[str, None]()
        while len(made) < vocabulary:
            made[
                "".join(
                    rng.choice(onsets) + rng.choice(vowels) + rng.choice(codas)
                    for _ in range(rng.choice((1, 2, 2, 2, 3, 3)))
                )
            ] = None
        self._nouns = [word for word in made if len(word) > 2]
        self._weights = list(accumulate(1 / (rank + 20) for rank in range(len(self._nouns))))

    def _noun(self) -> str:
        return self._rng.choices(self._nouns, cum_weights=self._weights)[0]

    def distinct(self, make: Callable[[], tuple[str, ...]], count: int) -> list[tuple[str, ...]]:
        """So many groups of texts, none of which was made before."""
        groups = list[tuple[str, ...]]()
        while len(groups) < count:
            group = make()
            if self._made.isdisjoint(group):
                groups.append(group)
                self._made.update(group)
        return groups

    def instruction(self) -> str:
        """6 to 35 words."""
        rng = self._rng
        words = [rng.choice(_OPENINGS).format(self._noun())]
        for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5, 8))):
            words += [rng.choice(self._small), *(self._noun() for _ in range(rng.choice((1, 2, 3))))]
        return " ".join(words) + rng.choice((".", "?", "", "!"))

    def look_alikes(self) -> tuple[str, str]:
        """Two texts that are alike and ask for different things."""
        rng = self._rng
        if rng.random() < 0.5:
            template = rng.choice(_NUMBER_TEMPLATES)
            one = [rng.randint(2, 9_999), rng.randint(2, 99)]
            other = [one[0] + rng.choice((0, 1, 10)), one[1] + rng.choice((1, 2, 10))]
            return template.format(*one), template.format(*other)
        template = rng.choice(_TEMPLATES)
        while True:
            left, right = rng.choice(self._nouns), rng.choice(self._nouns)
            if len({*left, *right}) > max(len({*left}), len({*right})) + 1:
                return template.format(left), template.format(right)


def near_copy(text: str, rng: random.Random) -> str:
    """The text with one small change: case, punctuation, a word more, two words swapped, or a typo."""
    return rng.choice(CHANGES)(text, rng)


def _case(text: str, rng: random.Random) -> str:
    return rng.choice((text.upper, text.lower, text.title))()


def _punctuation(text: str, rng: random.Random) -> str:
    kept = text.rstrip(string.punctuation)
    return rng.choice((kept, kept + "...", f'"{kept}"', kept.replace(" ", "  ", 2) + " !"))


def _word_more(text: str, rng: random.Random) -> str:
    words = text.split()
    words.insert(rng.randint(0, len(words)), rng.choice(_ADDED))
    return " ".join(words)


def _swapped(text: str, rng: random.Random) -> str:
    words = text.split()
    place = rng.randrange(len(words) - 1)
    words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words)


def _typo(text: str, rng: random.Random) -> str:
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    long = [i for i in places if len(_word_at(text, i)) > 3]
    place = rng.choice(long or places)
    letter = rng.choice(string.ascii_lowercase)
    return rng.choice(
        (
            text[:place] + text[place + 1 :],
            text[:place] + letter + text[place:],
            text[:place] + letter + text[place + 1 :],
            text[:place] + text[place + 1] + text[place] + text[place + 2 :],
        )
    )


def _word_at(text: str, place: int) -> str:
    begin = max((i + 1 for i in range(place) if text[i] == " "), default=0)
    return text[begin:].split(" ", 1)[0]


CHANGES: Sequence[Callable[[str, random.Random], str]] = (_case, _punctuation, _word_more, _swapped, _typo)
