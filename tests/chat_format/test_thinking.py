"""Thinking from the config to the file: a worker whose engine thinks before it answers."""

from pathlib import Path
from typing import Any

import pytest

from magpie_ray.engine.protocol import Request
from magpie_ray.engine.simulated.engine import Answer
from magpie_ray.errors import FormatError, RowExhaustedError
from magpie_ray.model.tokenizer import load_tokenizer
from magpie_ray.worker.worker import ShardWorker
from tests.support.builds import model_folder
from tests.worker.test_worker import FIRST, Replies, make_spec, rows_of, run

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content.split('</think>')[-1] | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think></think>' }}{% endif %}{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return model_folder(tmp_path / "thinks", TEMPLATE)


class Thinker:
    """Asks "one", and answers "two" after it has thought "three"; keeps the prompts as texts."""

    def __init__(self, folder: str, answer: str = "<think>\nthree\n</think>\n\ntwo") -> None:
        self.tokenizer: Any = load_tokenizer(folder).tokenizer
        self.answer = answer
        self.prompts: list[str] = []

    def __call__(self, request: Request) -> Answer:
        prompt = self.tokenizer.decode(request.prompt_token_ids)
        self.prompts.append(prompt)
        answers = prompt.rpartition("<|start_header_id|>")[2].startswith("assistant")
        text = self.answer if answers else "one"
        return self.tokenizer(text, add_special_tokens=False)["input_ids"], "stop"


def test_reasoning_goes_to_its_own_column_and_out_of_later_prompts(tmp_path: Path, folder: str) -> None:
    spec = make_spec(tmp_path, f"model.name={folder}", "model.thinking=true", "system_prompt=''")
    engine = Thinker(folder)
    list(run(ShardWorker(spec, Replies(engine)), FIRST))
    for row in rows_of(spec.storage, FIRST):
        assert row["reasoning"] == ["three", "three"]
        assert [m["content"] for m in row["conversation"]] == ["one", "two", "one", "two"]  # type: ignore[attr-defined]
    whole = engine.tokenizer.apply_chat_template(
        [
            {"role": role, "content": text}
            for role, text in (("user", "one"), ("assistant", "two"), ("user", "one"))
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert engine.prompts.count(whole) == 8
    assert not any("three" in prompt for prompt in engine.prompts)


def test_without_thinking_answers_that_think_all_the_same_are_rejected(tmp_path: Path, folder: str) -> None:
    spec = make_spec(tmp_path, f"model.name={folder}", "acceptance.max_attempts=2")
    engine = Thinker(folder)
    with pytest.raises(RowExhaustedError, match="role_marker"):
        list(run(ShardWorker(spec, Replies(engine)), FIRST))
    assert any(prompt.endswith("<think></think>") for prompt in engine.prompts)


def test_reasoning_that_never_ends_stops_the_job_with_the_remedy(tmp_path: Path, folder: str) -> None:
    spec = make_spec(tmp_path, f"model.name={folder}", "model.thinking=true", "acceptance.max_attempts=2")
    with pytest.raises(
        RowExhaustedError, match=r"unfinished_reasoning.*\n.*raise sampling\.assistant\.max_tokens"
    ):
        list(run(ShardWorker(spec, Replies(Thinker(folder, "<think> three"))), FIRST))


def test_thinking_is_refused_before_anything_starts_where_the_template_knows_of_none(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"^model\.thinking: got true, but"):
        make_spec(tmp_path, "model.thinking=true")
