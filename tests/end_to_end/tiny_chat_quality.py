"""The quality of tiny_chat: what it writes on real vLLM, judged by its corpus, as figures.

Owns which rows are written and what is counted. The rows are written as a job writes them: with the chat
format derived from the tokenizer, in rounds over the real engine, under the acceptance rules. User messages
are sampled at temperature 1; answers are greedy.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jobs.tiny_chat import corpus
from jobs.tiny_chat.corpus import TOPICS, Message
from magpie_ray.config.loading import parse_config
from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from magpie_ray.engine.protocol import Engine
from magpie_ray.generation.rounds import Rounds
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.types import Rejection, Row
from magpie_ray.worker.parts import make_recipe, make_window, vllm_engine
from magpie_ray.worker.spec import WorkerSpec
from tests.support.builds import memory_storage

_ROWS = 1000
_LONG_ROWS = 200
_TAUGHT_PROMPT = "You are a helpful assistant for {topic}."  # the model card's
_UNTAUGHT_PROMPT = "Our guests are curious visitors of a museum, so explain {topic} to them with patience."

# What each figure must at least be.
FLOORS: Mapping[str, float] = {
    "first instructions well formed, no system prompt": 0.99,
    "first instructions well formed, multi-turn system prompt": 0.99,
    "distinct first instructions, no system prompt": 0.5,
    "distinct first instructions, multi-turn system prompt": 0.5,
    "topics with 2% of the rows, no system prompt": 8 / len(TOPICS),
    "topics with 2% of the rows, multi-turn system prompt": 8 / len(TOPICS),
    "on a named topic, the least of all": 0.95,
    "on a topic named in an untaught sentence, the least of all": 0.90,
    "first instructions that can be judged": 0.95,
    "right answers to first instructions": 0.95,
    "instructions of five rounds that can be judged": 0.95,
    "right answers to instructions of five rounds": 0.95,
    "later instructions that follow up, no system prompt": 0.90,
    "later instructions that follow up, multi-turn system prompt": 0.90,
    "messages accepted that end by themselves": 0.995,
}


class Share(NamedTuple):
    """How many of how many."""

    count: int
    of: int

    @property
    def value(self) -> float:
        return self.count / self.of

    def __str__(self) -> str:
        return f"{self.count} of {self.of}"


@functools.cache
def measure_quality() -> Mapping[str, Share]:
    """Every figure of FLOORS. One engine writes all rows and is closed at the end."""
    author = _Author()
    try:
        figures = _figures(author)
        print(f"\nrejected {dict(Counter(rejection.reason for rejection in author.rejections))}")
        for rejection in author.rejections[:5]:
            print(f"    {rejection.reason}: {rejection.example!r}")
        return figures
    finally:
        author.close()


class _Author:
    """Writes rows with tiny_chat. `rows`: every row so far; `rejections`: the attempts that did not count."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self.rows: list[Row] = []
        self.rejections: list[Rejection] = []

    def write(self, num_rows: int, system_prompt: object, **keys: object) -> list[Row]:
        """Write `num_rows` rows; `keys` are further sections of the config."""
        config = {
            "num_rows": num_rows,
            "system_prompt": system_prompt,
            "model": {"name": "builtin:tiny-chat"},
            "sampling": {"user": {"max_tokens": 64}, "assistant": {"max_tokens": 64}},
            "engine": {"max_model_len": 1024, "max_num_seqs": 256},
            # "And what is the month before that?" may well come twice.
            "acceptance": {"rules": {"repeated_turn": False}},
        }
        spec = WorkerSpec(
            build_spec=resolve_build(parse_config(config | keys)),
            storage=memory_storage(),
            fingerprint="",
            run=1,
            device="cpu",
        )
        self._engine = self._engine or vllm_engine(spec)
        rounds = Rounds(self._engine, make_recipe(spec), make_window(spec, self._engine.figures))
        rounds.add(range(num_rows))
        rows = []
        while rounds.busy:
            for outcome in rounds.step():
                if isinstance(outcome, Row):
                    rows.append(outcome)
                else:
                    self.rejections.append(outcome)
        self.rows += rows
        return rows

    def close(self) -> None:
        if self._engine:
            self._engine.close()
        self._engine = None


def _figures(author: _Author) -> dict[str, Share]:
    plain = author.write(_ROWS, "", n_turns=2)
    prompted = author.write(_ROWS, MULTI_TURN_PROMPT)
    long = author.write(_LONG_ROWS, MULTI_TURN_PROMPT, n_turns=5)
    figures = {
        "on a named topic, the least of all": _steered(author, _TAUGHT_PROMPT, rows_per_topic=500),
        "on a topic named in an untaught sentence, the least of all": _steered(
            author, _UNTAUGHT_PROMPT, rows_per_topic=200
        ),
    }
    for name, rows in (("no system prompt", plain), ("multi-turn system prompt", prompted)):
        firsts = [row.messages[0].text for row in rows]
        topics = Counter(filter(None, map(corpus.topic_of, firsts)))
        common = [topic for topic, count in topics.items() if count >= 0.02 * len(rows)]
        figures |= {
            f"first instructions well formed, {name}": Share(topics.total(), len(rows)),
            f"distinct first instructions, {name}": Share(len(set(firsts)), len(rows)),
            f"topics with 2% of the rows, {name}": Share(len(common), len(TOPICS)),
        }
    for name, rows in (("no system prompt", plain), ("multi-turn system prompt", long)):
        flags = [corpus.follows_up(cut) for row in rows for cut in _cuts(row, "user")[1:]]
        figures[f"later instructions that follow up, {name}"] = _share(flags)
    first_answers = [_cuts(row, "assistant")[0] for row in (*plain, *prompted)]
    for name, cuts in (
        ("first instructions", first_answers),
        ("instructions of five rounds", [cut for row in long for cut in _cuts(row, "assistant")]),
    ):
        verdicts = [corpus.is_right(cut[:-1], cut[-1]["content"]) for cut in cuts]
        known = [verdict for verdict in verdicts if verdict is not None]
        figures |= {
            f"{name} that can be judged": Share(len(known), len(verdicts)),
            f"right answers to {name}": _share(known),
        }
    messages = [message for row in author.rows for message in row.messages]
    figures["messages accepted that end by themselves"] = Share(
        sum(message.finish_reason == "stop" for message in messages), len(messages) + len(author.rejections)
    )
    return figures


def _steered(author: _Author, prompt: str, *, rows_per_topic: int) -> Share:
    """First instructions on the topic that the system prompt names, for the topic that does it worst."""
    prompts = {topic: prompt.format(topic=topic) for topic in TOPICS}
    flags: dict[str, list[bool]] = {topic: [] for topic in TOPICS}
    for row in author.write(rows_per_topic * len(TOPICS), prompts, only_instruction=True):
        assert row.system_prompt is not None
        assert row.system_prompt.key is not None
        topic = row.system_prompt.key
        flags[topic].append(corpus.topic_of(row.messages[0].text) == topic)
    return min(map(_share, flags.values()), key=lambda share: share.value)


def _share(flags: Sequence[bool]) -> Share:
    return Share(sum(flags), len(flags))


def _cuts(row: Row, role: str) -> list[list[Message]]:
    """The row's conversation, cut after each message of the role."""
    messages = [{"role": m.role, "content": m.text} for m in row.messages]
    return [messages[: at + 1] for at, message in enumerate(messages) if message["role"] == role]
