"""What a score pass asks, compared with its model and its source before anything starts."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile

from magpie_ray.chat_format import ChatFormat
from magpie_ray.chat_format.dialogue import Dialogues
from magpie_ray.chat_format.format import SystemPrefix
from magpie_ray.config.score import ScoreConfig
from magpie_ray.errors import ConfigError, FormatError
from magpie_ray.model.heads import architecture_of, label_count, vector_size
from magpie_ray.model.resolve import Model
from magpie_ray.model.tokenizer import LoadedTokenizer
from magpie_ray.scoring.columns import Column, make_columns
from magpie_ray.scoring.rows import texts_of
from magpie_ray.sources.reader import SourceRow

Prompts = list[list[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a score pass asks. vector_size: of an embedding model. read_tokens: see BuildSpec."""

    vector_size: int | None
    first_prompt: SystemPrefix
    read_tokens: float


def template_date(config: ScoreConfig, loaded: LoadedTokenizer, recorded: str | None) -> datetime.date | None:
    """The date that the template of a reward model writes: the recorded one, or today. None for no date."""
    if config.kind != "reward":
        return None
    date = datetime.date.fromisoformat(recorded) if recorded else None
    return Dialogues(loaded.tokenizer, date=date).date


def check_columns(
    config: ScoreConfig,
    rows: Sequence[SourceRow],
    *,
    model: Model,
    loaded: LoadedTokenizer,
    form: ChatFormat | None,
    several: bool,
    date: datetime.date | None,
) -> Asked:
    """What the first rows are asked.

    rows: the first ones of the source. several: see make_columns. ConfigError and FormatError where the model
    or the rows do not serve a column.
    """
    columns = make_columns(config.columns, tokenizer=loaded.tokenizer, form=form, several=several, date=date)
    size = _size(config, model)
    for column in columns:
        column.check(size)
    by_column = [_prompts(config, column, rows) for column in columns]
    first = next(prompt for prompt in chain(*by_column[0]))
    text = loaded.tokenizer.decode(first, skip_special_tokens=False)
    return Asked(
        vector_size=size if config.kind == "embed" else None,
        first_prompt=SystemPrefix(system_prompt="", text=text, ids=tuple(first)),
        read_tokens=_read_tokens(by_column),
    )


def _size(config: ScoreConfig, model: Model) -> int | None:
    """Numbers that the model gives for a text, as Column.check takes it."""
    trust = config.model.trust_remote_code
    labels = label_count(model, trust_remote_code=trust)
    if config.kind == "embed":
        size = vector_size(model, trust_remote_code=trust)
        if size is None and (lacking := [n for n, c in config.columns.items() if not c.dimensions]):  # type: ignore[union-attr]
            raise ConfigError(
                f"columns.{lacking[0]}.dimensions: null, but the files of {model.name} do not say how many "
                "numbers its vectors have; say it here"
            )
        return size
    is_reward = config.kind == "reward"
    if (labels is not None) != is_reward:
        must = "a reward model, which ends in SequenceClassification" if is_reward else "a chat model"
        raise ConfigError(
            f"model.name: got {model.name}, whose architecture is {architecture_of(model) or 'not known'}; "
            f"columns of the kind {config.kind} need {must}"
        )
    return labels


def _read_tokens(by_column: Sequence[Sequence[Prompts]]) -> float:
    """Tokens of a row's prompts that neither the row before nor the row's earlier prompts begin with."""
    fresh, before = list[int](), list[Prompts]()
    for row in zip(*by_column, strict=True):
        known: Prompts = []
        read = 0
        for column, prompts in enumerate(row):
            for prompt in prompts:
                earlier = [*known, *(before[column] if before else [])]
                read += len(prompt) - max((_shared(prompt, one) for one in earlier), default=0)
                known.append(prompt)
        fresh.append(read)
        before = list(row)
    rest = fresh[1:] or fresh  # the first row reads what all rows share
    return sum(rest) / len(rest)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _prompts(config: ScoreConfig, column: Column, rows: Sequence[SourceRow]) -> list[Prompts]:
    """The prompts of a column by row. A mistake of the whole source shows in its first rows."""
    prompts = list[Prompts]()
    for row in rows:
        try:
            asked = [inquiry.request() for inquiry in column.inquiries(row, texts_of(row))]
            prompts.append([request[0] for request in asked if request])
        except FormatError as exc:
            raise FormatError(
                f"columns.{column.names[0]}: row {row.row_id} of {config.source.path} can't be scored: {exc}"
            ) from exc
    if not any(prompts):
        texts = " and ".join(config.columns[column.names[0]].texts)
        raise ConfigError(
            f"columns.{column.names[0]}: needs the {texts} of a row, and the first {len(rows)} rows of "
            f"{config.source.path} have none; score another source, or name another text"
        )
    return prompts
