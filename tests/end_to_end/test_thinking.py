"""A pass by a thinking model on real vLLM: the thought in a column of its own, the answer without it."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import parse_as
from magpie_ray.types import Partition
from magpie_ray.worker.parts import vllm_engine
from magpie_ray.worker.worker import ShardWorker
from tests.support.sources import instructions, write_source
from tests.support.specs import open_worker_spec

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore")]

ROWS = 8


def test_each_answer_has_its_own_thought_and_none_of_it_in_its_text(tmp_path: Path) -> None:
    from tests.end_to_end.thinker import THOUGHT_TOKENS, Closes, thinking_model  # torch takes seconds

    rows = instructions(*(f"What is {number} plus 2?" for number in range(ROWS)))
    config = parse_as(
        AnswerConfig,
        {
            "source": {"path": str(write_source(tmp_path / "rows.jsonl", rows))},
            "n": 2,
            "model": {"name": str(thinking_model(tmp_path / "model")), "thinking": True},
            "sampling": {"assistant": {"temperature": 0.8, "max_tokens": 100}},
            "engine": {
                "device": "cpu",
                "max_model_len": 256,
                "max_num_seqs": 16,
                "extra": {"logits_processors": [f"{Closes.__module__}:{Closes.__qualname__}"]},
            },
            "output": {"path": str(tmp_path / "out")},
        },
    )
    spec = open_worker_spec(config, grid=ROWS)
    worker = ShardWorker(spec, vllm_engine)
    partition = Partition(start=0, stop=ROWS)
    worker.give(partition)
    worker.finish()
    list(worker.run())
    written = pq.read_table(tmp_path / "out" / partition.key).to_pylist()
    assert [row["row_id"] for row in written] == list(range(ROWS))
    for row in written:
        assert len(row["reasoning"]) == len(row["responses"]) == 2
        assert all(thought and "think>" not in thought for thought in row["reasoning"])
        assert all(text and "think>" not in text for text in row["responses"])
    # Two draws of a row do not think alike.
    assert sum(first != second for first, second in (row["reasoning"] for row in written)) > ROWS // 2
    tokens = [count for row in written for count in row["completion_tokens"]]
    assert min(tokens) > THOUGHT_TOKENS
