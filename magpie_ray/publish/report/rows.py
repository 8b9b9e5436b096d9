"""What the rows of a survey are like: how long their messages are, and how their instructions begin."""

from collections.abc import Sequence
from dataclasses import dataclass

from magpie_ray.publish.survey import MessageKey, Survey, mean, quantile


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """Instructions that begin with a word, and how they go on."""

    word: str
    rows: int
    then: Sequence[tuple[str, int]]


def word_tree(survey: Survey, *, first: int, second: int) -> Sequence[Branch]:
    """The most frequent first words, each with the most frequent second ones; "" for no word."""
    by_word = dict[str, dict[str, int]]()
    for (word, after), rows in survey.first_words.items():
        by_word.setdefault(word, {})[after] = rows
    largest = sorted(by_word.items(), key=lambda item: (-sum(item[1].values()), item[0]))[:first]
    return [
        Branch(
            word=word,
            rows=sum(then.values()),
            then=sorted(then.items(), key=lambda item: (-item[1], item[0]))[:second],
        )
        for word, then in largest
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthRow:
    """What the table of lengths says of the messages of one role and turn. cut: ended by max_tokens, 0..1."""

    role: str
    turn: int
    messages: int
    mean: float
    low: int
    median: int
    high: int
    largest: int
    characters: int
    cut: float


def length_rows(survey: Survey) -> list[LengthRow]:
    """In the order of the conversation."""

    def order(key: MessageKey) -> tuple[int, bool]:
        return key[1], key[0] == "assistant"

    found = []
    for role, turn in sorted(survey.tokens, key=order):
        counts = survey.tokens[role, turn]
        endings = survey.finish_reasons.get((role, turn), {})
        found.append(
            LengthRow(
                role=role,
                turn=turn,
                messages=sum(counts.values()),
                mean=mean(counts),
                low=quantile(counts, 0.05),
                median=quantile(counts, 0.5),
                high=quantile(counts, 0.95),
                largest=max(counts),
                characters=quantile(survey.characters[role, turn], 0.5),
                cut=endings.get("length", 0) / max(1, sum(endings.values())),
            )
        )
    return found
