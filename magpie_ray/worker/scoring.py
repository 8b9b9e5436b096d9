"""The task of `score`: rows of a source over one scoring engine."""

import logging
from collections.abc import Callable, Iterable, Sequence

from magpie_ray.config.score import ScoreConfig
from magpie_ray.counters import EngineStats
from magpie_ray.engine.scoring import ScoringEngine
from magpie_ray.errors import ModelError
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.scoring import Scorer
from magpie_ray.scoring.columns import Column, make_columns
from magpie_ray.sources.reader import SourceReader, SourceRow
from magpie_ray.types import Rejection, ScoredRow
from magpie_ray.worker.input_feed import InputFeed
from magpie_ray.worker.parts import load_tokenizer_of
from magpie_ray.worker.spec import WorkerSpec
from magpie_ray.worker.task import BeginTask

log = logging.getLogger(__name__)


def prepare_scoring(spec: WorkerSpec, config: ScoreConfig, *, on_loaded: Callable[[], None]) -> BeginTask:
    """Begin to load rows of the source; the task begins once there is an engine.

    on_loaded: called from the background when more rows can start. ModelError when this machine does not have
    the build's model.
    """
    build_spec = spec.build_spec
    source = build_spec.source
    assert source is not None, "a pass has a source"
    build_spec.model.check()
    columns = make_columns(
        config.columns,
        tokenizer=load_tokenizer_of(build_spec).tokenizer,
        form=build_spec.chat_format,
        several=source.shape.responses,
        date=build_spec.date,
    )
    reader = SourceReader(source, config.source.storage_options, config.source.keep)
    feed = InputFeed(SourceRows(reader), number=source.num_rows, on_loaded=on_loaded)
    return lambda engine: ScoringTask(build_spec, engine, columns, feed)


class SourceRows:
    """Rows of a source as they are. One thread at a time calls `load`."""

    def __init__(self, reader: SourceReader) -> None:
        self._reader = reader

    def load(self, rows: Sequence[int]) -> list[SourceRow]:
        """These rows, in their order. What SourceReader raises."""
        return self._reader.load(rows)

    def characters(self, loaded: SourceRow) -> int:
        """Of the row's texts; a byte of a kept column counts as one."""
        texts = [text for _, text in loaded.messages]
        texts += [text for text in (loaded.system_prompt, *loaded.responses) if text is not None]
        return sum(map(len, texts)) + (loaded.kept.nbytes if loaded.kept is not None else 0)

    def close(self) -> None:
        self._reader.close()


class ScoringTask:
    """A scorer, whose rows are loaded ahead. See Task."""

    decided = 0
    awaited_rule = ""

    def __init__(
        self,
        build_spec: BuildSpec,
        engine: ScoringEngine,
        columns: Sequence[Column],
        feed: InputFeed[SourceRow],
    ) -> None:
        if build_spec.vector_size not in (None, engine.vector_size):
            raise ModelError(
                f"{build_spec.model.name} gives vectors of {engine.vector_size} numbers, and its files say "
                f"{build_spec.vector_size}: set `dimensions` of the columns"
            )
        self.more_to_come = False
        self._engine, self._feed = engine, feed
        self._scorer = Scorer(engine, columns)

    @property
    def busy(self) -> bool:
        return self._scorer.busy or self._feed.has_some

    @property
    def unstarted(self) -> int:
        return self._scorer.unstarted + self._feed.waiting

    @property
    def awaited_inputs(self) -> int:
        return self._feed.waiting

    @property
    def live_window(self) -> int:
        return self._scorer.window

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def add(self, rows: range) -> None:
        self._feed.open(rows, ahead=self.live_window)

    def discard(self, rows: range) -> None:
        self._scorer.discard(rows)
        self._feed.drop(rows)

    def step(self) -> Iterable[ScoredRow | Rejection]:
        if (room := self.live_window - self._scorer.unstarted) > 0:
            taken = self._feed.take(room)
            self._scorer.add(self._feed.start_of(row_id) for row_id in taken)
            self._feed.release(taken)
        return self._scorer.step()

    def take_outcomes(self) -> Iterable[ScoredRow | Rejection]:
        return self._scorer.take_outcomes()

    def close(self) -> None:
        self._feed.close()
