"""What a model of tiny_chat's kind is worth: figures by the corpus' judges, of what it writes on real vLLM.

Owns: which rows are written, and what is counted. They are written as the job writes them: a chat format
derived from the model's tokenizer, the rounds over the real engine, the acceptance rules. User messages are
sampled at temperature 1, answers are greedy. The same for every model, so that figures stand side by side.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jobs.tiny_chat import corpus
from jobs.tiny_chat.corpus import MULTI_TURN_SYSTEM_PROMPT, TOPICS, Message
from magpie_ray.config.schema import parse_config
from magpie_ray.engine.protocol import Engine
from magpie_ray.generation.rounds import Rounds
from magpie_ray.preflight.build_spec import resolve_build
from magpie_ray.types import Rejection, Row
from magpie_ray.worker.parts import make_recipe, make_window, vllm_engine
from magpie_ray.worker.spec import WorkerSpec
from tests.support.builds import memory_storage

BUNDLED = "builtin:tiny-chat"

_ROWS = 1000
_LONG_ROWS = 200
_TAUGHT_PROMPT = "You are a helpful assistant for {topic}."  # the model card's
_UNTAUGHT_PROMPT = "Our guests are curious visitors of a museum, so explain {topic} to them with early_stop."

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
    "right reasoning before answers": 0.95,  # with thinking
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


Quality = Mapping[str, Share]


@functools.cache
def quality_of(model: str, *, thinking: bool = False) -> Quality:
    """The figures of a model, a folder's or the bundled one's. One engine writes all rows, then goes."""
    author = _Author(model, thinking=thinking)
    try:
        figures = _figures(author)
        print(f"\n{model}: rejected {dict(Counter(found.reason for found in author.rejections))}")
        for found in author.rejections[:5]:
            print(f"    {found.reason}: {found.example!r}")
        return figures
    finally:
        author.close()


def as_table(qualities: Mapping[str, Quality]) -> str:
    """Figures side by side, as Markdown. The keys are the models' names."""
    lines = [["measured", *qualities], ["---"] * (1 + len(qualities))]
    lines += [[name, *(str(quality.get(name, "")) for quality in qualities.values())] for name in FLOORS]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class _Author:
    """Writes rows with one model. `rows` are all there were, `rejections` the attempts that did not count."""

    def __init__(self, model: str, *, thinking: bool) -> None:
        self._model = model
        self._engine: Engine | None = None
        self.thinking = thinking
        self.rows: list[Row] = []
        self.rejections: list[Rejection] = []

    def write(self, num_rows: int, system_prompt: object, **keys: object) -> list[Row]:
        """As many rows, by a config of the keys."""
        spec = self._spec(
            num_rows=num_rows,
            system_prompt=system_prompt,
            model={"name": self._model, "thinking": self.thinking and "only_instruction" not in keys},
            sampling={"user": {"max_tokens": 64}, "assistant": {"max_tokens": 64}},
            engine={"max_model_len": 1024, "max_num_seqs": 256},
            # "And what is the month before that?" may well come twice.
            acceptance={"rules": {"repeated_turn": False}},
            **keys,
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

    @staticmethod
    def _spec(**keys: object) -> WorkerSpec:
        config = parse_config(keys)
        build_spec = resolve_build(config)
        return WorkerSpec(
            build_spec=build_spec,
            storage=memory_storage(),
            fingerprint="",
            run=1,
            engine_start=0,
            device="cpu",
            distributed_executor_backend=None,
        )


def _figures(author: _Author) -> dict[str, Share]:
    plain = author.write(_ROWS, "", n_turns=2)
    prompted = author.write(_ROWS, MULTI_TURN_SYSTEM_PROMPT)
    long = author.write(_LONG_ROWS, MULTI_TURN_SYSTEM_PROMPT, n_turns=5)
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
    thought = [cut for row in (*plain, *prompted, *long) for cut in _cuts(row, "assistant")]
    if author.thinking:
        flags = [cut[-1]["reasoning"] in right for cut in thought if (right := corpus.reasonings(cut[:-1]))]
        figures["right reasoning before answers"] = _share(flags)
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
    messages = [{"role": m.role, "content": m.text, "reasoning": m.reasoning} for m in row.messages]
    return [messages[: at + 1] for at, message in enumerate(messages) if message["role"] == role]
