"""The corpus and its judges, and the committed files of tiny_chat (without running the model)."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.tiny_chat import corpus
from jobs.tiny_chat.corpus import TOPICS, Message
from jobs.tiny_chat.relations import RELATIONS
from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from tests.support.paths import ROOT

MODEL = ROOT / "magpie_ray/tiny_chat"
DIALOGUES = list(corpus.dialogues(2000, seed=1))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


def without_system(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message["role"] != "system"]


def test_every_first_instruction_is_well_formed() -> None:
    assert all(corpus.topic_of(without_system(messages)[0]["content"]) in TOPICS for messages in DIALOGUES)


def test_every_later_instruction_follows_up() -> None:
    for messages in DIALOGUES:
        turns = without_system(messages)
        assert all(corpus.follows_up(turns[: at + 1]) for at in range(2, len(turns), 2))


def test_every_answer_is_right() -> None:
    for messages in DIALOGUES:
        answers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        assert all(corpus.is_right(messages[:at], messages[at]["content"]) is True for at in answers)


def test_a_topic_in_the_system_prompt_is_the_topic_of_the_dialogue() -> None:
    named = 0
    for messages in DIALOGUES:
        topics = corpus.topics_named(messages[0]["content"]) if messages[0]["role"] == "system" else set()
        named += len(topics)
        assert topics <= {corpus.topic_of(without_system(messages)[0]["content"])}
    assert named > len(DIALOGUES) / 4


def test_general_system_prompts_name_no_topic() -> None:
    rng = random.Random(0)
    prompts = {corpus.general_system_prompt(rng) for _ in range(2000)}
    assert MULTI_TURN_PROMPT in prompts
    assert not any(corpus.topics_named(prompt) for prompt in prompts)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_system_prompt_names_its_topic_only(topic: str) -> None:
    rng = random.Random(0)
    assert {frozenset(corpus.topics_named(corpus.topic_system_prompt(rng, topic))) for _ in range(300)} == {
        frozenset({topic})
    }


def test_dialogues_alternate_and_have_one_to_five_rounds() -> None:
    lengths = set()
    for messages in DIALOGUES:
        turns = without_system(messages)
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        lengths.add(len(turns) // 2)
    assert lengths == {1, 2, 3, 4, 5}


def test_no_message_has_whitespace_around_it() -> None:
    texts = {message["content"] for messages in DIALOGUES for message in messages}
    assert all(text and text == text.strip() and "{" not in text for text in texts)


def test_the_corpus_knows_many_topics_and_instructions() -> None:
    assert len(TOPICS) >= 10
    instructions = corpus.first_instructions()
    assert len(instructions) >= 5000
    for topic in TOPICS:
        assert sum(corpus.topic_of(text) == topic for text in instructions) >= 200


def test_no_first_instruction_belongs_to_two_topics() -> None:
    seen: dict[str, str] = {}
    for relation in RELATIONS:
        for entity in relation.table:
            for text in corpus.instructions_for(corpus.Fact(relation, entity)):
                assert seen.setdefault(text, relation.topic) == relation.topic


def test_reverse_questions_have_one_answer() -> None:
    for relation in RELATIONS:
        if relation.reverse:
            assert len(set(relation.table.values())) == len(relation.table), relation.name


def test_the_same_seed_gives_the_same_dialogues() -> None:
    assert list(corpus.dialogues(200, seed=5)) == list(corpus.dialogues(200, seed=5))
    assert list(corpus.dialogues(200, seed=5)) != list(corpus.dialogues(200, seed=6))


def ask(*texts: str) -> list[Message]:
    """A history from its texts, user first."""
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def test_a_wrong_answer_is_refused() -> None:
    question = ask("What is the capital of Spain?")
    assert corpus.is_right(question, "The capital of Spain is Madrid.") is True
    assert corpus.is_right(question, "The capital of Spain is Lisbon.") is False
    assert corpus.is_right(question, "The capital of Portugal is Lisbon.") is False
    assert corpus.is_right(question, "The capital of Spain is Madrid. The") is False


def test_an_answer_is_judged_by_its_history() -> None:
    history = ask("What is the capital of Spain?", "The capital of Spain is Madrid.", "What about Italy?")
    assert corpus.is_right(history, "The capital of Italy is Rome.") is True
    assert corpus.is_right(history, "The currency of Italy is the euro.") is False
    history += ask("And what is its currency?")
    assert corpus.is_right(history, "The currency of Italy is the euro.") is True
    assert corpus.is_right(history, "The currency of Spain is the euro.") is False


def test_results_of_calculations_are_what_follow_ups_mean() -> None:
    history = ask("What is 7 plus 8?", "The result of 7 plus 8 is 15.", "Now double that.")
    assert corpus.is_right(history, "The double of 15 is 30.") is True
    assert corpus.is_right(history, "The double of 8 is 16.") is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is the capital of",
        "What is the capital of giraffe?",
        " What is the capital of Spain?",
        "What is the capital of Spain? The capital of Spain is Madrid.",
        "And what is its capital?",
        "Write a poem.",
    ],
)
def test_what_is_not_a_first_instruction_is_refused(text: str) -> None:
    assert corpus.topic_of(text) is None
    assert corpus.is_right(ask(text), "Madrid.") is None


def test_a_new_pair_of_known_entities_is_well_formed_but_not_judged() -> None:
    text = "Which color do red and red make?"
    assert corpus.topic_of(text) == "colors"
    assert corpus.is_right(ask(text), "When you mix red and red you get red.") is None
    assert text not in corpus.first_instructions()


def test_a_follow_up_must_fit_the_conversation() -> None:
    history = ask("What is the capital of Spain?", "The capital of Spain is Madrid.")
    assert corpus.follows_up(history + ask("And what is its currency?"))
    assert corpus.follows_up(history + ask("And Peru?"))
    assert not corpus.follows_up(history + ask("Now double that."))
    assert not corpus.follows_up(history + ask("And helium?"))
    assert not corpus.follows_up(history + ask("What is the capital of Peru?"))


def test_the_files_are_small_and_all_there() -> None:
    sizes = {path.name: path.stat().st_size for path in MODEL.iterdir() if path.is_file()}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= set(sizes)
    assert sum(sizes.values()) <= 8_000_000


@given(text=st.text())
def test_the_tokenizer_keeps_any_text(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text


def test_a_rendered_conversation_has_one_begin_of_text(tokenizer: Any) -> None:
    messages = ask("What is 7 plus 8?", "The result of 7 plus 8 is 15.")
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_the_tokenizer_adds_begin_of_text_by_itself(tokenizer: Any) -> None:
    assert tokenizer("Hello")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in tokenizer("Hello", add_special_tokens=False)["input_ids"]


def test_the_template_marks_each_message_with_single_tokens(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(ask("Hi"), tokenize=False, add_generation_prompt=True)
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    expected = "<|begin_of_text|>" + header.format("user") + "Hi<|eot_id|>" + header.format("assistant")
    assert text == expected
    for special in ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"):
        assert len(tokenizer.encode(special, add_special_tokens=False)) == 1


def test_the_text_before_a_message_has_the_same_tokens_with_and_without_the_message(tokenizer: Any) -> None:
    before = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
    ids = tokenizer.encode(before, add_special_tokens=False)
    assert tokenizer.encode(before + "What is it?", add_special_tokens=False)[: len(ids)] == ids


def test_generation_stops_at_the_end_of_turn(tokenizer: Any) -> None:
    config = json.loads((MODEL / "generation_config.json").read_text())
    assert tokenizer.eos_token == "<|eot_id|>"
    assert tokenizer.eos_token_id in config["eos_token_id"]
