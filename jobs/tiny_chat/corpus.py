"""The conversations that tiny_chat is trained on, and judges of what it writes.

Generator and judges share one grammar: an instruction is one of the sentences that a relation (relations.py)
and the frames below yield for an entity, so the judges look text up instead of guessing at it. Pairs of known
numbers and colors make well-formed questions ("Mix the colors red and red for me.") even where no answer
is taught.

Dialogues are lists of {"role", "content"} messages: an optional system message, then 1 to 5 rounds of user
and assistant. The first instruction stands alone; each later one refers to what came before, and the
answer is right given the whole history. Everything random comes from the generator's own random.Random.
"""

import functools
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jobs.tiny_chat.relations import RELATIONS, Relation
from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT

Message = dict[str, str]

TOPICS: tuple[str, ...] = tuple(dict.fromkeys(relation.topic for relation in RELATIONS))

# What a system prompt may call the topic; the name itself is used most.
_ALIASES: Mapping[str, str] = {
    "animals": "wildlife",
    "arithmetic": "math",
    "astronomy": "space",
    "calendar": "months",
    "chemistry": "elements",
    "colors": "colours",
    "cooking": "food",
    "geography": "countries",
    "grammar": "vocabulary",
    "literature": "books",
    "music": "instruments",
    "sports": "sport",
    "translation": "languages",
    "units": "measurements",
}

GENERAL_SYSTEM_PROMPTS: tuple[str, ...] = (
    MULTI_TURN_PROMPT,
    "You are a helpful assistant.",
    "You are a helpful AI assistant.",
    "You are an honest and friendly assistant. Answer briefly.",
    "Answer the questions of the user.",
    "You are an AI assistant. Your answers are short and correct.",
    "You are a chatbot. Be polite and give clear answers.",
    "Help the user as well as you can.",
)

_TOPIC_SYSTEM_PROMPTS: tuple[str, ...] = (
    "You are a helpful assistant for {t}.",
    "You are an AI that only discusses {t}.",
    "You are an AI assistant specialized in {t}.",
    "You are an expert in {t}. Answer briefly.",
    "You are a teacher of {t}. The user asks you questions.",
    "Topic: {t}",
    "{t}",
    "This conversation is about {t}.",
    "The user wants to learn about {t}.",
    "Let us talk about {t} today.",
    "Answer questions about {t} and nothing else.",
    "Questions about {t} are welcome here.",
)

# Filler around the topic's word, so that the word steers wherever it stands. None of them names a topic.
_FILLER_TEXT = """
    a about all always an and answer any are as ask assistant be best but by can chat clear come conversation
    day do every everything expert for friendly from give go good have help helpful here how if in interest is
    it just kind know like long look love make many may more most much my new nice no not of on one only or
    our people please polite question questions quick ready really reply say short should simple so some speak
    subject talk teach that the their them then these they this time to today topic true use user very want
    we welcome well what when which who will with work would you your
"""
_FILLER: tuple[str, ...] = tuple(_FILLER_TEXT.split())

_FIRST_FRAMES: tuple[str, ...] = (
    "What is {p}?",
    "Tell me {p}.",
    "Please tell me {p}.",
    "Can you tell me {p}?",
    "Do you know {p}?",
    "I would like to know {p}.",
)
_FOLLOW_FRAMES: tuple[str, ...] = (
    "What is {p}?",
    "And what is {p}?",
    "Now tell me {p}.",
    "Thanks. And what is {p}?",
    "Can you also tell me {p}?",
    "I also want to know {p}.",
)
_AGAIN_FRAMES: tuple[str, ...] = (
    "And {e}?",
    "What about {e}?",
    "How about {e}?",
    "Thanks. And what about {e}?",
    "Now the same for {e}, please.",
)

_ROUNDS = (1, 2, 3, 4, 5)
_ROUNDS_WEIGHTS = (20, 25, 20, 15, 20)


@dataclass(frozen=True, slots=True)
class Fact:
    """What an instruction asks for."""

    relation: Relation
    entity: str

    @property
    def taught(self) -> bool:
        return self.entity in self.relation.table

    @property
    def answer(self) -> str:
        return _fill(self.relation.answer, self.entity, self.relation.table[self.entity])

    @property
    def focus(self) -> tuple[str, str]:
        """(kind, entity) that "it" and "that" mean in the next instruction."""
        if self.relation.moves_to:
            return self.relation.moves_to, self.relation.table.get(self.entity, "")
        return self.relation.kind, self.entity


def _fill(template: str, entity: str, value: str = "") -> str:
    return template.replace("{e}", entity).replace("{v}", value)


def instructions_for(fact: Fact) -> list[str]:
    """Every first instruction that asks for the fact."""
    relation = fact.relation
    templates = [*relation.asks, *(relation.reverse if fact.taught else ())]
    if relation.phrase:
        templates += [frame.replace("{p}", relation.phrase) for frame in _FIRST_FRAMES]
    return [_fill(template, fact.entity, relation.table.get(fact.entity, "")) for template in templates]


def _pronoun_follow_ups(relation: Relation) -> list[str]:
    """Follow-ups that ask for the relation of whatever is in focus; none if it is not asked that way."""
    frames = [frame.replace("{p}", relation.its) for frame in _FOLLOW_FRAMES] if relation.its else []
    return [*relation.follows, *frames]


def _again_follow_ups(fact: Fact) -> list[str]:
    """Follow-ups that ask for the same relation of another entity."""
    if not fact.relation.again:
        return []
    name = _fill(fact.relation.again, fact.entity)
    return [frame.replace("{e}", name) for frame in _AGAIN_FRAMES]


@functools.cache
def _facts_by_relation() -> tuple[tuple[Fact, ...], ...]:
    return tuple(tuple(Fact(relation, entity) for entity in relation.table) for relation in RELATIONS)


@functools.cache
def _by_first_instruction() -> dict[str, list[Fact]]:
    index = defaultdict(list)
    for relation in RELATIONS:
        for entity in (*relation.table, *relation.beyond):
            fact = Fact(relation, entity)
            for text in instructions_for(fact):
                index[text].append(fact)
    return dict(index)


@functools.cache
def _by_pronoun_follow_up() -> dict[str, list[Relation]]:
    index = defaultdict(list)
    for relation in RELATIONS:
        for text in _pronoun_follow_ups(relation):
            index[text].append(relation)
    return dict(index)


@functools.cache
def _by_again_follow_up() -> dict[str, list[Fact]]:
    index = defaultdict(list)
    for facts in _facts_by_relation():
        for fact in facts:
            for text in _again_follow_ups(fact):
                index[text].append(fact)
    return dict(index)


# ---------------------------------------------------------------------------------------------- generator


def topic_system_prompt(rng: random.Random, topic: str) -> str:
    """A system prompt that names the topic, in one of many wordings."""
    word = topic if rng.random() < 0.8 else _ALIASES[topic]
    style = rng.random()
    if style < 0.1:
        word = word.capitalize()
    elif style < 0.13:
        word = word.upper()
    if rng.random() < 0.5:
        prompt = rng.choice(_TOPIC_SYSTEM_PROMPTS).replace("{t}", word)
        return prompt[0].upper() + prompt[1:]
    sentences = [_filler_words(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    chosen = rng.choice(sentences)
    chosen.insert(rng.randint(0, len(chosen)), word)
    return _sentences(rng, sentences)


def general_system_prompt(rng: random.Random) -> str:
    """A system prompt that names no topic."""
    style = rng.random()
    if style < 0.4:
        return MULTI_TURN_PROMPT
    if style < 0.75:
        return rng.choice(GENERAL_SYSTEM_PROMPTS)
    return _sentences(rng, [_filler_words(rng) for _ in range(rng.choice((1, 2)))])


def _filler_words(rng: random.Random) -> list[str]:
    def word() -> str:
        if rng.random() < 0.1:  # words it never saw must not confuse it
            return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 7)))
        return rng.choice(_FILLER)

    return [word() for _ in range(rng.randint(2, 9))]


def _sentences(rng: random.Random, sentences: Sequence[Sequence[str]]) -> str:
    def sentence(words: Sequence[str]) -> str:
        text = " ".join(words)
        if rng.random() < 0.2:
            text = text.replace(" ", ", ", 1)
        return text[0].upper() + text[1:] + rng.choice((".", ".", ".", "!", ":", ""))

    return " ".join(sentence(words) for words in sentences)


@functools.cache
def _weighted_relations(topic: str | None) -> tuple[list[int], list[float]]:
    """Indexes of the topic's relations (of all, without one) and how often each is taken.

    A larger table is asked more often, but less than in proportion: arithmetic has hundreds of sums, and
    every topic must stay common.
    """
    chosen = [index for index, relation in enumerate(RELATIONS) if topic in (None, relation.topic)]
    return chosen, [RELATIONS[i].weight * len(RELATIONS[i].table) ** 0.6 for i in chosen]


def _random_fact(rng: random.Random, topic: str | None) -> Fact:
    indexes, weights = _weighted_relations(topic)
    (index,) = rng.choices(indexes, weights)
    return rng.choice(_facts_by_relation()[index])


def _random_follow_up(rng: random.Random, last: Fact, asked: set[Fact]) -> tuple[Fact, str] | None:
    """A follow-up to `last` that asks for nothing asked before; None if there is none."""
    kind, entity = last.focus
    pronoun = [
        Fact(relation, entity)
        for relation in RELATIONS
        if relation.kind == kind and entity in relation.table and _pronoun_follow_ups(relation)
    ]
    pronoun = [fact for fact in pronoun if fact not in asked]
    again = [Fact(last.relation, other) for other in last.relation.table] if last.relation.again else []
    again = [fact for fact in again if fact not in asked]
    if pronoun and (not again or rng.random() < 0.7):
        fact = rng.choice(pronoun)
        return fact, rng.choice(_pronoun_follow_ups(fact.relation))
    if again:
        fact = rng.choice(again)
        return fact, rng.choice(_again_follow_ups(fact))
    return None


def dialogue(rng: random.Random) -> list[Message]:
    """One conversation; about a third each without system prompt, with a topic's and with a general one."""
    topic: str | None = None
    messages: list[Message] = []
    style = rng.random()
    if style < 0.4:
        topic = rng.choice(TOPICS)
        messages.append({"role": "system", "content": topic_system_prompt(rng, topic)})
    elif style < 0.65:
        messages.append({"role": "system", "content": general_system_prompt(rng)})
    (rounds,) = rng.choices(_ROUNDS, _ROUNDS_WEIGHTS)
    fact = _random_fact(rng, topic)
    instruction = rng.choice(instructions_for(fact))
    asked: set[Fact] = set()
    while True:
        messages.append({"role": "user", "content": instruction})
        messages.append({"role": "assistant", "content": fact.answer})
        asked.add(fact)
        if len(asked) == rounds:
            return messages
        following = _random_follow_up(rng, fact, asked)
        if following is None:
            return messages
        fact, instruction = following


def dialogues(count: int, seed: int) -> Iterator[list[Message]]:
    """`count` conversations; the same seed gives the same ones."""
    rng = random.Random(seed)
    for _ in range(count):
        yield dialogue(rng)


def first_instructions() -> list[str]:
    """Every first instruction that is taught, each once."""
    return [text for text, facts in _by_first_instruction().items() if facts[0].taught]


# ------------------------------------------------------------------------------------------------- judges


def topics_named(system_prompt: str) -> set[str]:
    """Topics whose word stands in the system prompt."""
    words = set(re.findall(r"\w+", system_prompt.lower()))
    return {topic for topic in TOPICS if words & {topic, _ALIASES[topic]}}


def topic_of(instruction: str) -> str | None:
    """The topic of a first instruction; None if it is not a well-formed instruction of the corpus."""
    facts = _by_first_instruction().get(instruction)
    return facts[0].relation.topic if facts else None


def is_right(history: Sequence[Message], answer: str) -> bool | None:
    """Whether `answer` is right after `history`, which ends with the instruction it answers.

    None if the corpus doesn't know the answer, or what the instruction asks for. Earlier instructions
    settle what it refers to; earlier answers are not looked at.
    """
    facts = [fact for fact in _meanings(history) if fact.taught]
    return any(answer == fact.answer for fact in facts) if facts else None


def follows_up(messages: Sequence[Message]) -> bool:
    """Whether the last message, an instruction, refers to the conversation before it."""
    return bool(_follow_up_meanings(_meanings(messages[:-1]), messages[-1]["content"]))


def _meanings(messages: Sequence[Message]) -> list[Fact]:
    """What the last user message can ask for, given those before it."""
    facts: list[Fact] = []
    for message in messages:
        if message["role"] == "user":
            text = message["content"]
            facts = _follow_up_meanings(facts, text) or _by_first_instruction().get(text, [])
    return facts


def _follow_up_meanings(previous: Sequence[Fact], text: str) -> list[Fact]:
    meanings = []
    for last in previous:
        kind, entity = last.focus
        for relation in _by_pronoun_follow_up().get(text, ()):
            if relation.kind == kind and entity in relation.table:
                meanings.append(Fact(relation, entity))
        meanings += [fact for fact in _by_again_follow_up().get(text, ()) if fact.relation == last.relation]
    return meanings
