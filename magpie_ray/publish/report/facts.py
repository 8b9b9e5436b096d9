"""What a report is made from, and the figures that follow from it.

Pure: everything here is a value, or arithmetic over values. Times of work are seconds since the first run
began, with the pauses between runs left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from magpie_ray.config.sampling import sampling_choices
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.dataset.actor_history import ActorHistoryRecord
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.publish.survey import Survey
from magpie_ray.types import PartitionRecord

# Clocks of a store and a driver differ by so much at most; files of a copied build differ by more.
_CLOCK_SECONDS = 120.0
_MIN_BINS, _MAX_BINS = 6, 48


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """One run on the axis of work: from `begin` on for `seconds`; `started` is since 1970."""

    run: RunRecord
    started: float
    begin: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """What was committed between two times of work."""

    begin: float
    end: float
    rows: int
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """How often something was drawn (0..1 of all rows), and how often it was to be."""

    name: str
    text: str
    rows: int
    share: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that is known of a build.

    num_rows: what the build is to have. today: ISO 8601. lives: of each run's actors, by its number. written:
    when each file was, by key, in seconds since 1970. repeated: instructions that occur more than once, and
    how often. rejects: examples of rejected messages. price: of a GPU hour.
    """

    url: str
    build: BuildRecord
    runs: Sequence[RunRecord]
    records: Sequence[PartitionRecord]
    num_rows: int
    survey: Survey
    today: str
    lives: Mapping[int, ActorHistoryRecord] = field(default_factory=dict)
    written: Mapping[str, float] = field(default_factory=dict)
    repeated: Mapping[str, int] = field(default_factory=dict)
    rejects: Sequence[Mapping[str, object]] = ()
    price: float | None = None

    @cached_property
    def tally(self) -> Tally:
        """Every attempt behind what is committed."""
        return Tally.sum(Tally.of_record(record) for record in self.records)

    @property
    def complete(self) -> bool:
        """Whether all rows that the build is to have are committed."""
        return 0 < self.num_rows <= self.tally.rows

    @property
    def accepted(self) -> float:
        """The part of all attempts that was accepted, 0..1."""
        return self.tally.rows / max(1, self.tally.attempts)

    @property
    def size(self) -> int:
        """Bytes in data/."""
        return sum(record.size for record in self.records)

    @property
    def on_gpus(self) -> bool:
        return any(lives.num_gpus for lives in self.lives.values())

    @property
    def gpu_hours(self) -> float:
        """For which GPUs were held, over the runs that recorded it."""
        return sum(lives.gpu_hours for lives in self.lives.values())

    @property
    def actor_hours(self) -> float:
        """For which actors had their places."""
        return sum(lives.held_seconds for lives in self.lives.values()) / 3600

    @property
    def unrecorded(self) -> Sequence[int]:
        """Numbers of the runs whose actors were not recorded."""
        return [run.number for run in self.runs if run.number not in self.lives]

    @property
    def cost(self) -> float | None:
        """Of the GPU hours; None without a price, or without GPUs."""
        return self.gpu_hours * self.price if self.price is not None and self.on_gpus else None

    @cached_property
    def engine_use(self) -> EngineStats:
        """Of all runs that recorded it."""
        return EngineStats.sum(EngineStats(**run.engines) for run in self.runs if run.engines)

    @cached_property
    def stretches(self) -> Sequence[Stretch]:
        """The runs, one after the other. One that never said how it ended lasted until its last file."""
        last = dict[int, float]()
        for record in self.records:
            at = self.written.get(record.partition.key, 0.0)
            last[record.run] = max(at, last.get(record.run, 0.0))
        found, begin = list[Stretch](), 0.0
        for run in self.runs:
            started = _timestamp(run.started)
            end = _timestamp(run.ended) if run.ended else last.get(run.number, started)
            if not run.ended and run.number in self.lives:
                end = max(end, started + self.lives[run.number].seconds)
            seconds = max(0.0, end - started)
            found.append(Stretch(run=run, started=started, begin=begin, seconds=seconds))
            begin += seconds
        return found

    @property
    def seconds(self) -> float:
        """Of work, over all runs."""
        return sum(stretch.seconds for stretch in self.stretches)

    @property
    def up_seconds(self) -> float:
        """Of work, from when the first engine of each run was up, where that was recorded."""
        return sum(stretch.seconds - self._first_ready(stretch) for stretch in self.stretches)

    def _first_ready(self, stretch: Stretch) -> float:
        lives = self.lives.get(stretch.run.number)
        ready = [life.ready for life in lives.lives if life.ready is not None] if lives else []
        return min(min(ready, default=0.0), stretch.seconds)

    @cached_property
    def commits(self) -> Sequence[tuple[float, PartitionRecord]]:
        """Files with the time of work at which each was written; none where that is not in its run."""
        stretches = {stretch.run.number: stretch for stretch in self.stretches}
        found = list[tuple[float, PartitionRecord]]()
        for record in self.records:
            stretch, at = stretches.get(record.run), self.written.get(record.partition.key)
            if stretch is None or at is None:
                continue
            since = at - stretch.started
            if not -_CLOCK_SECONDS <= since <= stretch.seconds + _CLOCK_SECONDS:
                return ()
            found.append((stretch.begin + min(max(since, 0.0), stretch.seconds), record))
        return sorted(found, key=lambda commit: commit[0])

    @cached_property
    def bins(self) -> Sequence[Bin]:
        """What was committed, in equal spans of the time of work."""
        if not self.commits or not self.seconds:
            return ()
        number = min(_MAX_BINS, max(_MIN_BINS, len(self.commits) // 3))
        width = self.seconds / number
        rows, tokens = [0] * number, [0] * number
        for at, record in self.commits:
            index = min(number - 1, int(at / width))
            rows[index] += record.rows
            tokens[index] += record.user_tokens + record.assistant_tokens
        return [
            Bin(begin=i * width, end=(i + 1) * width, rows=rows[i], tokens=tokens[i]) for i in range(number)
        ]

    @property
    def prompts(self) -> Sequence[Share]:
        """The system prompts, in the order of the config; none where rows have none or share one."""
        wanted = self.build.identity.get("system_prompt")
        entries = wanted if isinstance(wanted, list) and len(wanted) > 1 else []
        total = max(1, self.survey.rows)
        counts = self.survey.system_prompts
        return [
            Share(
                name=str(key or f"prompt {index}"),
                text=str(text),
                rows=counts.get(text, 0),
                share=counts.get(text, 0) / total,
                weight=float(weight),
            )
            for index, (key, text, weight) in enumerate(entries, 1)
        ]

    @property
    def samplings(self) -> Sequence[Share]:
        """The sampling settings by sampling_key; none where all rows are made with the same."""
        choices, counts = sampling_choices(self.build.identity), self.survey.samplings
        total = max(1, self.survey.rows)
        return [
            Share(
                name=str(key),
                text=text,
                rows=counts.get(key, 0),
                share=counts.get(key, 0) / total,
                weight=weight,
            )
            for key, (text, weight) in enumerate(choices)
            if len(choices) > 1
        ]

    def gpu_hours_of(self, run: RunRecord) -> float | None:
        """For which the run held GPUs; None where it was not recorded."""
        lives = self.lives.get(run.number)
        return lives.gpu_hours if lives else None

    def rows_of(self, run: RunRecord) -> int:
        """Rows that the run has committed."""
        return sum(record.rows for record in self.records if record.run == run.number)


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
