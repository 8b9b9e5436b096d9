"""The source of a pass: looked at before anything starts, and kept from changing under a build that exists.

Invariants: the source is only read. A pass goes on only over a source that has what it had, in its place.
"""

from collections.abc import Iterable

from magpie_ray.chat_format import ChatFormat
from magpie_ray.chat_format.format import SystemPrefix
from magpie_ray.chat_format.of_model import Prefixes
from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.score import ScoreConfig
from magpie_ray.dataset.layout import SOURCE_KEY
from magpie_ray.errors import ConfigError, FormatError
from magpie_ray.inputs.overlap import would_read
from magpie_ray.sources.index import SourceIndex, look_at_source
from magpie_ray.sources.reader import SourceReader, SourceRow
from magpie_ray.storage.storage import ObjectNotFoundError, Storage

# Rows that are tried before anything starts: a mistake of the whole source shows in the first ones.
_TRIED_ROWS = 32


def look_at_source_of(config: AnswerConfig | ScoreConfig, own: Iterable[str]) -> tuple[SourceIndex, int]:
    """The source, and how many of its rows the pass goes over. own: columns that rows have anyway.

    ConfigError for what the config has wrong about it; what look_at_source raises.
    """
    keys = config.source
    if would_read(keys.path, config.output.path):
        raise ConfigError(
            f"output.path: got {config.output.path}, which lies in source.path ({keys.path}): the source "
            "would change as rows are written. Choose a place outside"
        )
    source = look_at_source("source.path", keys.path, keys.storage_options, keys.keep)
    own = {name.lower() for name in own}
    if taken := [name for name in keys.keep if name.lower() in own]:
        raise ConfigError(
            f"source.keep: got {taken[0]}, which is the name of a column that rows have anyway. Taken are "
            f"{', '.join(sorted(own))}"
        )
    if config.num_rows > source.num_rows:
        raise ConfigError(
            f"num_rows: got {config.num_rows:,}, must be at most {source.num_rows:,}, the rows of "
            f"{keys.path}; leave it out for all rows, also those that come later"
        )
    return source, config.num_rows or source.num_rows


def prompt_of(config: AnswerConfig, row: SourceRow) -> str | None:
    """The system prompt that a row is answered under."""
    return row.system_prompt if config.system_prompt is None else config.system_prompt or None


def first_rows(config: AnswerConfig | ScoreConfig, source: SourceIndex) -> list[SourceRow]:
    """The rows that are tried before anything starts."""
    reader = SourceReader(source, config.source.storage_options)
    try:
        return reader.load(range(min(_TRIED_ROWS, config.num_rows)))
    finally:
        reader.close()


def first_start(
    config: AnswerConfig, source: SourceIndex, prefixes: Prefixes, form: ChatFormat
) -> SystemPrefix:
    """What the first row starts with. FormatError where the chat format does not take the first rows."""
    rows = first_rows(config, source)
    for row in rows:
        prompt = prompt_of(config, row)
        try:
            if prompt is None and prefixes.refuses_none:
                raise FormatError(f"it has no system prompt, and {prefixes.refuses_none}")
            if prompt is not None:
                prefixes.check([prompt])
            form.require(turns=len(row.messages) // 2 + 1, answers=True)
        except (FormatError, ConfigError) as exc:
            remedy = 'set system_prompt: "" to answer without the system prompts of the source'
            raise type(exc)(
                f"row {row.row_id} of {config.source.path} can't be answered: {exc}"
                + (f"; {remedy}" if prompt else "")
            ) from exc
    prompt = prompt_of(config, rows[0])
    return prefixes.of([prompt])[0] if prompt else form.start(None)


def check_same_source(source: SourceIndex, storage: Storage) -> None:
    """BuildMismatchError where the source has changed since the pass at the output began, but for growing."""
    if before := _remembered(storage):
        source.check_grown_from(before)


def remember_source(source: SourceIndex, storage: Storage) -> None:
    """Keep what the source is now, for check_same_source. What another run knows of more rows stays."""
    before = _remembered(storage)
    if before is None or before.num_rows < source.num_rows:
        storage.replace(SOURCE_KEY, source.to_bytes())


def _remembered(storage: Storage) -> SourceIndex | None:
    try:
        return SourceIndex.from_bytes(storage.read(SOURCE_KEY))
    except ObjectNotFoundError:
        return None
