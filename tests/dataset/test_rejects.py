"""The sample of what was thrown away."""

import pytest

from magpie_ray.dataset.rejects import RejectsSample, by_reason, read_rejects, replace_sample
from magpie_ray.errors import CorruptBuildError
from magpie_ray.types import Message, Partition, Rejection, SystemPrompt
from tests.support.builds import memory_storage


def rejection(row_id: int, reason: str, text: str = "text", attempt: int = 1) -> Rejection:
    question = Message(role="user", text="Why?", finish_reason="stop", prompt_tokens=1, completion_tokens=1)
    return Rejection(
        row_id=row_id,
        attempt=attempt,
        role="assistant",
        turn=1,
        reason=reason,
        text=text,
        messages=(question,),
        system_prompt=SystemPrompt(text="Be kind.", weight=1.0, key="kind"),
        input_id=7,
        user_tokens=1,
        assistant_tokens=2,
    )


def test_a_few_for_each_reason_are_kept_in_the_order_of_rows() -> None:
    sample = RejectsSample(2)
    for row_id, reason in [(4, "empty"), (3, "empty"), (2, "truncated"), (1, "empty")]:
        sample.note(rejection(row_id, reason))
    assert [(r.row_id, r.reason) for r in sample.among(range(10))] == [
        (2, "truncated"),
        (3, "empty"),
        (4, "empty"),
    ]
    assert [r.row_id for r in sample.among(range(3, 4))] == [3]


def test_files_of_other_programs_are_no_samples() -> None:
    storage = memory_storage()
    replace_sample(storage, Partition(start=0, stop=4), [rejection(1, "empty")])
    for name in (".DS_Store", "Thumbs.db", "part-000000000000.jsonl.tmp"):
        storage.create(f"_magpie/rejects/{name}", b"?")
    assert [reject["row_id"] for reject in read_rejects(storage)] == [1]


def test_none_are_kept_where_none_are_wanted() -> None:
    sample = RejectsSample(0)
    sample.note(rejection(1, "empty"))
    assert sample.among(range(10)) == []


def test_what_is_written_is_read_whole_whatever_the_text() -> None:
    storage, text = memory_storage(), "line\nnext\u2028 \u0085 é 你 \x1b[31m"
    replace_sample(storage, Partition(start=4, stop=8), [rejection(5, "empty", text)])
    replace_sample(storage, Partition(start=0, stop=4), [rejection(1, "not_text")])
    replace_sample(storage, Partition(start=8, stop=9), [])
    first, second = read_rejects(storage)
    assert (first["row_id"], first["reason"]) == (1, "not_text")
    assert second == {
        "row_id": 5,
        "attempt": 1,
        "turn": 1,
        "role": "assistant",
        "reason": "empty",
        "system_prompt": "Be kind.",
        "system_prompt_key": "kind",
        "input_id": 7,
        "messages": [{"role": "user", "content": "Why?"}],
        "text": text,
    }


def test_a_sample_of_an_earlier_version_is_read_without_inputs() -> None:
    storage = memory_storage()
    replace_sample(storage, Partition(start=0, stop=4), [rejection(1, "empty")])
    key = "_magpie/rejects/part-000000000000.jsonl"
    storage.replace(key, storage.read(key).replace(b'"input_id": 7, ', b""))
    [read] = read_rejects(storage)
    assert (read["row_id"], read["input_id"]) == (1, None)


def test_a_damaged_sample_is_named() -> None:
    storage = memory_storage()
    storage.replace("_magpie/rejects/part-000000000000.jsonl", b'{"row_id": 1}\n')
    with pytest.raises(CorruptBuildError, match=r"part-000000000000\.jsonl is damaged"):
        list(read_rejects(storage))


def test_a_reader_gets_the_first_few_of_each_reason() -> None:
    rejects = [{"reason": reason, "row_id": n} for n, reason in enumerate("abbabc")]
    assert [r["row_id"] for r in by_reason(rejects, 2)] == [0, 3, 1, 2, 5]
