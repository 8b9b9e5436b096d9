"""What tiny_chat can be asked: relations between small things, with the words to ask for them.

A Relation is a table (entity -> value) and the phrases around it. `{e}` stands for the entity and `{v}`
for the value. Every entity and value is plain text, so sums ("7 plus 8" -> "15") fit the same shape as
capitals ("France" -> "Paris"). Nothing here is random.

Sentences place entities after another word, so that each has one spelling as tokens (the one that begins
with a space): a small vocabulary then holds nearly all of them whole.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.tiny_chat.facts import (
    ADJECTIVES,
    ANIMALS,
    BOOKS,
    COLORS,
    COMPOSERS,
    COUNTRIES,
    DAY_NAMES,
    DISHES,
    ELEMENTS,
    HOLIDAYS,
    INSTRUMENTS,
    MIXTURES,
    MONTH_NAMES,
    MONTHS,
    MOONS,
    PLANETS,
    QUANTITIES,
    SPORTS,
    STARS,
    UNITS,
    VERBS,
    WORDS,
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # equal means the same one
class Relation:
    topic: str
    name: str
    kind: str  # what the entities are; a follow-up can ask for any relation of the kind in focus
    table: Mapping[str, str]
    answer: str
    phrase: str = ""  # noun phrase with {e}, goes into the general frames ("What is ...?")
    its: str = ""  # the same with a pronoun, for follow-ups
    asks: tuple[str, ...] = ()  # further first instructions, with {e}
    reverse: tuple[str, ...] = ()  # first instructions that give {v} and want {e}; values must be distinct
    follows: tuple[str, ...] = ()  # further follow-ups, without {e}
    moves_to: str = ""  # the value, as an entity of this kind, is what the next follow-up refers to
    beyond: tuple[str, ...] = ()  # entities that are well formed too, although their value is not taught
    weight: float = 1.0  # how much more often than its size suggests it is asked
    again: str = "{e}"  # how "And ...?" names another entity; empty: such a follow-up is not asked


def _column(rows: Iterable[list[str]], index: int) -> dict[str, str]:
    """entity -> value; an empty cell means that the relation does not hold for the entity."""
    return {row[0]: row[index] for row in rows if row[index]}


def _pairs(names: Iterable[str], word: str, taught: Mapping[str, str]) -> tuple[str, ...]:
    """Every "a WORD b" that is not taught."""
    pairs = (f"{a} {word} {b}" for a, b in itertools.product(names, repeat=2))
    return tuple(pair for pair in pairs if pair not in taught)


def _arithmetic() -> list[Relation]:
    sums = {f"{a} plus {b}": str(a + b) for a in range(1, 10) for b in range(1, 10)}
    products = {f"{a} times {b}": str(a * b) for a in range(2, 8) for b in range(2, 8)}
    # Every result is a number that can be doubled, and every double one that can be halved, so that no
    # follow-up leaves what is taught.
    numbers = range(1, 51)
    relations = [
        Relation(
            topic="arithmetic",
            name=name,
            kind=name,
            table=table,
            beyond=_pairs([str(n) for n in range(1, 21)], word, table),
            weight=2.0,  # harder to learn than names: two numbers decide
            phrase="the result of {e}",
            asks=("What is {e}?", "Calculate {e}.", "How much is {e}?", "Work out {e} for me."),
            answer="The result of {e} is {v}.",
            moves_to="number",
        )
        for name, word, table in (("sum", "plus", sums), ("product", "times", products))
    ]
    relations += [
        Relation(
            topic="arithmetic",
            name="double",
            kind="number",
            table={str(n): str(2 * n) for n in numbers},
            phrase="twice {e}",
            its="twice that",
            asks=("Double the number {e}.", "How much is twice {e}?"),
            follows=("Now double that.", "Double that number."),
            answer="The double of {e} is {v}.",
            moves_to="double",
            again="",
        ),
        Relation(
            topic="arithmetic",
            name="half",
            kind="double",
            table={str(2 * n): str(n) for n in numbers},
            phrase="half of {e}",
            its="half of that",
            asks=("Halve the number {e}.", "How much is half of {e}?"),
            follows=("Now halve that.", "Halve that number."),
            answer="The half of {e} is {v}.",
            moves_to="number",
            again="",
        ),
        Relation(
            topic="arithmetic",
            name="parity",
            kind="number",
            table={str(n): ("odd" if n % 2 else "even") for n in numbers},
            asks=("Is {e} even or odd?", "Tell me whether {e} is even or odd."),
            follows=("Is that number even or odd?", "And is that even or odd?"),
            answer="The number {e} is {v}.",
            again="",
        ),
    ]
    return relations


def _geography() -> list[Relation]:
    return [
        Relation(
            topic="geography",
            name="capital",
            kind="country",
            table=_column(COUNTRIES, 1),
            phrase="the capital of {e}",
            its="its capital",
            asks=("Which city is the capital of {e}?",),
            reverse=("Which country has {v} as its capital?", "Name the country whose capital is {v}."),
            follows=("Which city is its capital?",),
            answer="The capital of {e} is {v}.",
        ),
        Relation(
            topic="geography",
            name="currency",
            kind="country",
            table=_column(COUNTRIES, 2),
            phrase="the currency of {e}",
            its="its currency",
            asks=("Which currency do people use in {e}?", "How do people pay in {e}?"),
            follows=("Which currency do people use there?",),
            answer="The currency of {e} is the {v}.",
        ),
        Relation(
            topic="geography",
            name="continent",
            kind="country",
            table=_column(COUNTRIES, 3),
            phrase="the continent of {e}",
            its="its continent",
            asks=("Which continent is {e} in?", "Where in the world is {e}?"),
            follows=("Which continent is that country in?",),
            answer="The country of {e} is in {v}.",
        ),
        Relation(
            topic="geography",
            name="language",
            kind="country",
            table=_column(COUNTRIES, 4),
            phrase="an official language of {e}",
            its="an official language of that country",
            asks=("Which language is official in {e}?", "What do people speak in {e}?"),
            follows=("Which language do people speak there?",),
            answer="An official language of {e} is {v}.",
        ),
    ]


def _cooking() -> list[Relation]:
    return [
        Relation(
            topic="cooking",
            name="ingredient",
            kind="dish",
            table=_column(DISHES, 1),
            phrase="the main ingredient of {e}",
            its="its main ingredient",
            asks=("What do I need most for {e}?", "What is {e} made of?"),
            follows=("What is it made of?",),
            answer="The main ingredient of {e} is {v}.",
        ),
        Relation(
            topic="cooking",
            name="origin",
            kind="dish",
            table=_column(DISHES, 2),
            phrase="the home country of the dish {e}",
            its="its home country",
            asks=("Where does the dish {e} come from?", "Which country is known for {e}?"),
            follows=("Which country does this dish come from?",),
            answer="The dish {e} comes from {v}.",
        ),
        Relation(
            topic="cooking",
            name="serving",
            kind="dish",
            table=_column(DISHES, 3),
            asks=("Is {e} served hot or cold?", "Should I serve {e} hot or cold?", "How do I serve {e}?"),
            follows=("Is it served hot or cold?", "How do I serve this dish?"),
            answer="The dish {e} is served {v}.",
        ),
    ]


def _animals() -> list[Relation]:
    return [
        Relation(
            topic="animals",
            name="class",
            kind="animal",
            table=_column(ANIMALS, 1),
            asks=(
                "What kind of animal is the {e}?",
                "Which animal class does the {e} belong to?",
                "Tell me what kind of animal the {e} is.",
            ),
            follows=("What kind of animal is it?", "And which animal class does it belong to?"),
            answer="The {e} is {v}.",
            again="the {e}",
        ),
        Relation(
            topic="animals",
            name="young",
            kind="animal",
            table=_column(ANIMALS, 2),
            phrase="the name for a baby {e}",
            its="the name for its baby",
            asks=("What is a baby {e} called?", "What do you call the young of the {e}?"),
            follows=("What is its baby called?",),
            answer="The young of the {e} is called {v}.",
            again="the {e}",
        ),
        Relation(
            topic="animals",
            name="food",
            kind="animal",
            table=_column(ANIMALS, 3),
            phrase="the food of the {e}",
            its="its food",
            asks=("What does the {e} eat?", "Tell me what the {e} eats."),
            follows=("And what does it eat?", "What does this animal eat?"),
            answer="The {e} eats {v}.",
            again="the {e}",
        ),
        Relation(
            topic="animals",
            name="home",
            kind="animal",
            table=_column(ANIMALS, 4),
            asks=("Where does the {e} live?", "Where can I find the {e}?", "Tell me where the {e} lives."),
            follows=("And where does it live?", "Where does this animal live?"),
            answer="The {e} lives {v}.",
            again="the {e}",
        ),
    ]


def _chemistry() -> list[Relation]:
    return [
        Relation(
            topic="chemistry",
            name="symbol",
            kind="element",
            table=_column(ELEMENTS, 1),
            phrase="the chemical symbol of {e}",
            its="its chemical symbol",
            asks=("Which symbol stands for {e}?",),
            reverse=("Which element has the symbol {v}?", "Name the element with the symbol {v}."),
            follows=("Which symbol stands for it?",),
            answer="The chemical symbol of {e} is {v}.",
        ),
        Relation(
            topic="chemistry",
            name="number",
            kind="element",
            table=_column(ELEMENTS, 2),
            phrase="the atomic number of {e}",
            its="its atomic number",
            asks=("How many protons does an atom of {e} have?",),
            reverse=("Which element has the atomic number {v}?", "Name the element with {v} protons."),
            follows=("How many protons does it have?",),
            answer="The atomic number of {e} is {v}.",
        ),
        Relation(
            topic="chemistry",
            name="state",
            kind="element",
            table=_column(ELEMENTS, 3),
            phrase="the state of {e} at room temperature",
            its="its state at room temperature",
            asks=("Is {e} a solid, a liquid or a gas?",),
            follows=("Is it a solid, a liquid or a gas?",),
            answer="At room temperature {e} is a {v}.",
        ),
        Relation(
            topic="chemistry",
            name="sort",
            kind="element",
            table=_column(ELEMENTS, 4),
            asks=("Is {e} a metal?", "Tell me whether {e} is a metal.", "Is {e} a metal or a nonmetal?"),
            follows=("Is it a metal or a nonmetal?", "And is it a metal?"),
            answer="The element {e} is a {v}.",
        ),
    ]


def _grammar() -> list[Relation]:
    def word(name: str, kind: str, table: dict[str, str], label: str, asks: tuple[str, ...] = ()) -> Relation:
        return Relation(
            topic="grammar",
            name=name,
            kind=kind,
            table=table,
            phrase=f"the {label} of the {kind} {{e}}",
            its=f"the {label} of that {kind}",
            asks=asks,
            follows=(f"And the {label}?",),
            answer=f"The {label} of {{e}} is {{v}}.",
        )

    return [
        word(
            "opposite",
            "adjective",
            _column(ADJECTIVES, 1),
            "opposite",
            ("Which word means the opposite of {e}?",),
        ),
        word(
            "synonym", "adjective", _column(ADJECTIVES, 2), "synonym", ("Which word means the same as {e}?",)
        ),
        word("comparative", "adjective", _column(ADJECTIVES, 3), "comparative"),
        word("past", "verb", _column(VERBS, 1), "past tense", ("Put the verb {e} into the past tense.",)),
        word("participle", "verb", _column(VERBS, 2), "past participle"),
    ]


def _colors() -> list[Relation]:
    swapped = {" and ".join(reversed(pair.split(" and "))): color for pair, color in MIXTURES.items()}
    mixtures = MIXTURES | swapped
    return [
        Relation(
            topic="colors",
            name="mixture",
            kind="mixture",
            table=mixtures,
            beyond=_pairs([row[0] for row in COLORS], "and", mixtures),
            phrase="the mixture of {e}",
            asks=(
                "What do you get when you mix {e}?",
                "Which color do I get if I mix {e}?",
                "Mix the colors {e} for me.",
                "Which color do {e} make?",
                "How do {e} look when mixed?",
            ),
            answer="When you mix {e} you get {v}.",
            moves_to="color",
            again="",
        ),
        Relation(
            topic="colors",
            name="thing",
            kind="color",
            table=_column(COLORS, 1),
            phrase="a thing that is {e}",
            its="a thing of that color",
            asks=("Give me an example of something {e}.", "Which thing is usually {e}?"),
            follows=("Give me an example of something of that color.",),
            answer="An example of something {e} is {v}.",
        ),
        Relation(
            topic="colors",
            name="gemstone",
            kind="color",
            table=_column(COLORS, 2),
            phrase="a gemstone that is {e}",
            its="a gemstone of that color",
            asks=("Which gemstone is {e}?",),
            follows=("Which gemstone has that color?",),
            answer="A gemstone that is {e} is {v}.",
        ),
        Relation(
            topic="colors",
            name="feeling",
            kind="color",
            table=_column(COLORS, 3),
            asks=(
                "Is {e} a warm or a cool color?",
                "Tell me whether {e} is a warm color.",
                "Is the color {e} warm, cool or neutral?",
            ),
            follows=("Is that a warm or a cool color?", "And is that color warm or cool?"),
            answer="The color {e} is {v}.",
        ),
        Relation(
            topic="colors",
            name="animal",
            kind="color",
            table=_column(COLORS, 4),
            phrase="an animal that is {e}",
            its="an animal of that color",
            asks=("Which animal is usually {e}?",),
            follows=("Which animal has that color?",),
            answer="An animal that is usually {e} is {v}.",
        ),
    ]


def _sports() -> list[Relation]:
    return [
        Relation(
            topic="sports",
            name="place",
            kind="sport",
            table=_column(SPORTS, 1),
            asks=(
                "Where does {e} take place?",
                "Where do people do {e}?",
                "Tell me where {e} takes place.",
            ),
            follows=("And where does it take place?", "Where do people do this sport?"),
            answer="The sport of {e} takes place {v}.",
        ),
        Relation(
            topic="sports",
            name="equipment",
            kind="sport",
            table=_column(SPORTS, 2),
            phrase="the equipment for {e}",
            its="the equipment for it",
            asks=("What do I need for {e}?", "What should I bring to {e}?"),
            follows=("What do I need for it?",),
            answer="For {e} you need {v}.",
        ),
        Relation(
            topic="sports",
            name="sort",
            kind="sport",
            table={sport: f"{sort} sport" for sport, sort in _column(SPORTS, 3).items()},
            asks=("Is {e} a team sport?", "Tell me whether {e} is a team or an individual sport."),
            follows=("Is it a team sport?", "And is that a team or an individual sport?"),
            answer="The sport of {e} is mainly {v}.",
        ),
        Relation(
            topic="sports",
            name="players",
            kind="sport",
            table=_column(SPORTS, 4),
            phrase="the number of players on a side in {e}",
            its="the number of players on a side",
            asks=("How many players does each side have in {e}?",),
            follows=("How many players does each side have?",),
            answer="In {e} each side has {v}.",
        ),
    ]


def _cycle(names: list[str], step: int) -> dict[str, str]:
    return {name: names[(index + step) % len(names)] for index, name in enumerate(names)}


def _calendar() -> list[Relation]:
    def steps(kind: str, names: list[str]) -> list[Relation]:
        return [
            Relation(
                topic="calendar",
                name=f"{kind} {word}",
                kind=kind,
                table=_cycle(names, step),
                phrase=f"the {kind} {word} {{e}}",
                its=f"the {kind} {word} that",
                asks=(f"Which {kind} comes {word} {{e}}?",),
                follows=(f"And which {kind} comes {word} that?",),
                answer=f"The {kind} {word} {{e}} is {{v}}.",
                moves_to=kind,
            )
            for word, step in (("after", 1), ("before", -1))
        ]

    return [
        *steps("month", MONTH_NAMES),
        *steps("day", DAY_NAMES),
        Relation(
            topic="calendar",
            name="length",
            kind="month",
            table=_column(MONTHS, 1),
            phrase="the length of {e}",
            its="the length of that month",
            asks=("How many days does {e} have?", "How long is the month of {e}?"),
            follows=("How many days does that month have?",),
            answer="The month of {e} has {v}.",
        ),
        Relation(
            topic="calendar",
            name="season",
            kind="month",
            table=_column(MONTHS, 2),
            phrase="the northern season of {e}",
            its="its season in the north",
            asks=("Which season is {e} in, in the north?",),
            follows=("Which season is that month in?",),
            answer="In the north {e} is in {v}.",
        ),
        Relation(
            topic="calendar",
            name="place",
            kind="month",
            table=_column(MONTHS, 3),
            phrase="the place of {e} in the year",
            its="its place in the year",
            reverse=("Which month is the {v} of the year?", "Name the {v} month of the year."),
            follows=("Which place in the year does it have?",),
            answer="In the year {e} is the {v} month.",
        ),
        Relation(
            topic="calendar",
            name="weekend",
            kind="day",
            table={day: "the weekend" if day.startswith("S") else "the working week" for day in DAY_NAMES},
            asks=("Is {e} part of the weekend?", "Tell me whether {e} is in the weekend."),
            follows=("Is that part of the weekend?", "And is that day in the weekend?"),
            answer="The day {e} is part of {v}.",
        ),
        Relation(
            topic="calendar",
            name="holiday",
            kind="holiday",
            table=HOLIDAYS,
            phrase="the month of {e}",
            asks=("Which month is {e} in?", "When is {e}?"),
            answer="The month of {e} is {v}.",
            moves_to="month",
            again="",
        ),
    ]


def _music() -> list[Relation]:
    return [
        Relation(
            topic="music",
            name="family",
            kind="instrument",
            table=_column(INSTRUMENTS, 1),
            phrase="the family of the {e}",
            its="the family of that instrument",
            asks=(
                "Which family of instruments does the {e} belong to?",
                "What sort of instrument is the {e}?",
            ),
            follows=("What sort of instrument is it?",),
            answer="The {e} is a {v} instrument.",
            again="the {e}",
        ),
        Relation(
            topic="music",
            name="playing",
            kind="instrument",
            table=_column(INSTRUMENTS, 2),
            asks=("How do you play the {e}?", "How is the {e} played?", "Explain how to play the {e}."),
            follows=("And how do you play it?", "How is that instrument played?"),
            answer="The {e} is played {v}.",
            again="the {e}",
        ),
        Relation(
            topic="music",
            name="birth",
            kind="composer",
            table=_column(COMPOSERS, 1),
            phrase="the home country of the composer {e}",
            its="the home country of that composer",
            asks=("Where was the composer {e} born?",),
            follows=("Where was that composer born?",),
            answer="The composer {e} came from {v}.",
        ),
        Relation(
            topic="music",
            name="work",
            kind="composer",
            table=_column(COMPOSERS, 2),
            phrase="a famous work by {e}",
            its="a famous work by that composer",
            asks=("Which famous work did {e} compose?",),
            reverse=("Who composed {v}?", "Which composer wrote {v}?"),
            follows=("Which famous work did that composer write?",),
            answer="A famous work by {e} is {v}.",
        ),
    ]


def _units() -> list[Relation]:
    return [
        Relation(
            topic="units",
            name=f"{unit} in {smaller}",
            kind=unit,
            table={str(n): str(n * factor) for n in QUANTITIES},
            phrase=f"the number of {smaller} in {{e}} {unit}",
            its=f"the number of {smaller} in that",
            asks=(f"How many {smaller} are {{e}} {unit}?", f"Convert {{e}} {unit} to {smaller}."),
            follows=(f"And how many {smaller} is that?",),
            answer=f"There are {{v}} {smaller} in {{e}} {unit}.",
            again=f"{{e}} {unit}",
        )
        for unit, smaller, factor in UNITS
    ]


def _astronomy() -> list[Relation]:
    return [
        Relation(
            topic="astronomy",
            name="place",
            kind="planet",
            table=_column(PLANETS, 1),
            phrase="the place of {e} counted from the Sun",
            its="its place counted from the Sun",
            reverse=("Which planet is the {v} from the Sun?", "Name the {v} planet from the Sun."),
            follows=("Which place from the Sun does it have?",),
            answer="Counted from the Sun {e} is the {v} planet.",
        ),
        Relation(
            topic="astronomy",
            name="sort",
            kind="planet",
            table=_column(PLANETS, 2),
            asks=("What kind of planet is {e}?", "Tell me what kind of planet {e} is."),
            follows=("What kind of planet is it?", "And what kind of planet is that?"),
            answer="The planet {e} is a {v}.",
        ),
        Relation(
            topic="astronomy",
            name="rings",
            kind="planet",
            table=_column(PLANETS, 3),
            asks=("Does {e} have rings?", "Tell me whether the planet {e} has rings."),
            follows=("Does it have rings?", "And does that planet have rings?"),
            answer="The planet {e} has {v}.",
        ),
        Relation(
            topic="astronomy",
            name="constellation",
            kind="star",
            table=_column(STARS, 1),
            phrase="the constellation of the star {e}",
            its="its constellation",
            asks=("Which constellation is {e} in?", "Where in the sky is the star {e}?"),
            follows=("Which constellation is it in?",),
            answer="The star {e} is in the constellation {v}.",
        ),
        Relation(
            topic="astronomy",
            name="color",
            kind="star",
            table=_column(STARS, 2),
            phrase="the color of the star {e}",
            its="the color of that star",
            asks=("Which color does the star {e} have?",),
            follows=("Which color does that star have?",),
            answer="The color of the star {e} is {v}.",
        ),
        Relation(
            topic="astronomy",
            name="moon",
            kind="moon",
            table=MOONS,
            phrase="the planet of the moon {e}",
            asks=("Which planet does the moon {e} circle?", "Where is the moon {e} found?"),
            answer="The moon {e} circles {v}.",
            moves_to="planet",
            again="",
        ),
    ]


def _translation() -> list[Relation]:
    return [
        Relation(
            topic="translation",
            name=language,
            kind="word",
            table=_column(WORDS, index),
            phrase=f"the {language} word for {{e}}",
            its=f"the {language} word for it",
            asks=(f"How do you say {{e}} in {language}?", f"Translate the word {{e}} into {language}."),
            follows=(f"And in {language}?", f"Thanks. And how do you say it in {language}?"),
            answer=f"The {language} word for {{e}} is {{v}}.",
        )
        for index, language in enumerate(("French", "Spanish", "German", "Italian"), start=1)
    ]


def _literature() -> list[Relation]:
    return [
        Relation(
            topic="literature",
            name="author",
            kind="work",
            table=_column(BOOKS, 1),
            phrase="the author of {e}",
            its="its author",
            asks=("Who wrote {e}?", "Which author wrote {e}?"),
            follows=("Who wrote it?",),
            answer="The author of {e} is {v}.",
        ),
        Relation(
            topic="literature",
            name="kind",
            kind="work",
            table=_column(BOOKS, 2),
            asks=("Is {e} a novel, a play or a poem?", "What kind of work is {e}?", "Tell me what {e} is."),
            follows=("Is it a novel, a play or a poem?", "And what kind of work is it?"),
            answer="The work {e} is a {v}.",
        ),
        Relation(
            topic="literature",
            name="language",
            kind="work",
            table=_column(BOOKS, 3),
            phrase="the original language of {e}",
            its="its original language",
            asks=("Which language was {e} written in?",),
            follows=("Which language was it written in?",),
            answer="The original language of {e} is {v}.",
        ),
    ]


RELATIONS: tuple[Relation, ...] = (
    *_animals(),
    *_arithmetic(),
    *_astronomy(),
    *_calendar(),
    *_chemistry(),
    *_colors(),
    *_cooking(),
    *_geography(),
    *_grammar(),
    *_literature(),
    *_music(),
    *_sports(),
    *_translation(),
    *_units(),
)
