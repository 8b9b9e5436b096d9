"""The facts that a report is made from, and the figures that follow from them.

Pure: values, and arithmetic over values. A time of work is in seconds since the first run began, with the
pauses between runs left out.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from operator import itemgetter

from magpie_ray.config.sampling import sampling_choices
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.dataset.actor_history import ActorHistoryRecord, ActorLife, FailedNode
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.dataset.selection_record import SelectionRecord
from magpie_ray.publish.instruction_sample import GroupDiversity, diversity_by_group
from magpie_ray.publish.survey import Survey
from magpie_ray.types import ROLES, PartitionRecord
from magpie_ray.utils.text import shortened, visible

# The clocks of a store and a driver differ by less; the times of a copied build's files are off by more.
_CLOCK_SECONDS = 120.0
_MIN_BINS, _MAX_BINS = 6, 48
_NAME_CHARACTERS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """One run on the axis of work: it lasts `seconds` from `begin` on. started: seconds since 1970."""

    run: RunRecord
    started: float
    begin: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """The tokens generated between two times of work."""

    begin: float
    end: float
    tokens: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One of several choices: the share of the surveyed rows that drew it, and its weight, both 0..1."""

    name: str
    text: str
    rows: int
    share: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a report knows of a build.

    num_rows: the rows that the build is to have. today: ISO 8601. histories: of each run's actors, by the
    run's number. written: the time of each file in seconds since 1970, by key. repeated: instructions that
    occur more than once, with their number. lost_runs: numbers of the runs whose driver is gone without a
    record. rejects: examples of rejected messages. price: of a GPU hour. taken: by the query of a selection.
    """

    url: str
    build: BuildRecord
    runs: Sequence[RunRecord]
    records: Sequence[PartitionRecord]
    num_rows: int
    survey: Survey
    today: str
    histories: Mapping[int, ActorHistoryRecord] = field(default_factory=dict)
    written: Mapping[str, float] = field(default_factory=dict)
    lost_runs: Set[int] = frozenset()
    repeated: Mapping[str, int] = field(default_factory=dict)
    rejects: Sequence[Mapping[str, object]] = ()
    price: float | None = None
    taken: SelectionRecord | None = None

    @cached_property
    def tally(self) -> Tally:
        """All attempts behind the committed rows."""
        return Tally.sum(self.records)

    @property
    def complete(self) -> bool:
        """Whether all rows of the build are committed."""
        return 0 < self.num_rows <= self.tally.rows

    @property
    def accepted(self) -> float:
        """The accepted share of all attempts, 0..1."""
        return self.tally.accepted / max(1, self.tally.attempts)

    @property
    def rejected_at(self) -> Sequence[tuple[str, int, int]]:
        """(role, turn, rejected attempts) by turn, the user first; empty unless all files say so."""
        if sum(self.tally.rejected_at) < sum(self.tally.rejected.values()):
            return ()
        return [
            (ROLES[place % 2], place // 2 + 1, number) for place, number in enumerate(self.tally.rejected_at)
        ]

    @cached_property
    def rows_by_run(self) -> Mapping[int, int]:
        """Committed rows by the number of the run."""
        rows = Counter[int]()
        for record in self.records:
            rows[record.run] += record.rows
        return rows

    @property
    def on_gpus(self) -> bool:
        return any(history.num_gpus for history in self.histories.values())

    @property
    def gpu_hours(self) -> float:
        """GPU hours that actors held, over the runs with a history."""
        return sum(history.gpu_hours for history in self.histories.values())

    @property
    def actor_hours(self) -> float:
        """Hours that actors had a node, over the runs with a history."""
        return sum(history.held_seconds for history in self.histories.values()) / 3600

    @property
    def unrecorded(self) -> Sequence[int]:
        """Numbers of the runs without a history."""
        return [run.number for run in self.runs if run.number not in self.histories]

    @property
    def gone(self) -> Sequence[tuple[int, ActorLife]]:
        """The actors that were lost or left before their run ended, each with the number of the run."""
        return [
            (number, life)
            for number, history in self.histories.items()
            for life in history.lives
            if life.end in ("lost", "left")
        ]

    @property
    def failed_nodes(self) -> Sequence[tuple[int, FailedNode]]:
        """The nodes that were left alone after failures, each with the number of the run."""
        return [(number, node) for number, history in self.histories.items() for node in history.failed_nodes]

    @property
    def cost(self) -> float | None:
        """The cost of the GPU hours; None without a price or without GPUs."""
        return self.gpu_hours * self.price if self.price is not None and self.on_gpus else None

    @cached_property
    def engine_stats(self) -> EngineStats:
        """The work of all engines, over the runs that recorded it."""
        return EngineStats.sum(EngineStats(**run.engines) for run in self.runs if run.engines)

    @cached_property
    def stretches(self) -> Sequence[Stretch]:
        """The runs, one after the other. A run without a recorded end lasts until its last file or event."""
        last_file = dict[int, float]()
        for record in self.records:
            written = self.written.get(record.partition.key, 0.0)
            last_file[record.run] = max(written, last_file.get(record.run, 0.0))
        stretches, begin = list[Stretch](), 0.0
        for run in self.runs:
            started = _timestamp(run.started)
            end = _timestamp(run.ended) if run.ended else last_file.get(run.number, started)
            if not run.ended and run.number in self.histories:
                end = max(end, started + self.histories[run.number].seconds)
            seconds = max(0.0, end - started)
            stretches.append(Stretch(run=run, started=started, begin=begin, seconds=seconds))
            begin += seconds
        return stretches

    @property
    def seconds(self) -> float:
        """Seconds of work, over all runs."""
        return sum(stretch.seconds for stretch in self.stretches)

    @property
    def up_seconds(self) -> float:
        """Seconds of work after the first engine of each run was up; all seconds of a run without history."""
        return sum(stretch.seconds - self._first_ready(stretch) for stretch in self.stretches)

    def _first_ready(self, stretch: Stretch) -> float:
        history = self.histories.get(stretch.run.number)
        ready = [life.ready for life in history.lives if life.ready is not None] if history else []
        return min(min(ready, default=0.0), stretch.seconds)

    @cached_property
    def commits(self) -> Sequence[tuple[float, PartitionRecord]]:
        """(time of work, file) of each committed file; empty if a file's time lies outside its run."""
        stretches = {stretch.run.number: stretch for stretch in self.stretches}
        commits = list[tuple[float, PartitionRecord]]()
        for record in self.records:
            stretch, written = stretches.get(record.run), self.written.get(record.partition.key)
            if stretch is None or written is None:
                continue
            since = written - stretch.started
            if not -_CLOCK_SECONDS <= since <= stretch.seconds + _CLOCK_SECONDS:
                return ()
            commits.append((stretch.begin + min(max(since, 0.0), stretch.seconds), record))
        return sorted(commits, key=lambda commit: commit[0])

    @cached_property
    def generated(self) -> Sequence[tuple[float, float]]:
        """(time of work, tokens that engines had generated by then). Empty where a run did not record it."""
        points, before = [(0.0, 0.0)], 0.0
        for stretch in self.stretches:
            history = self.histories.get(stretch.run.number)
            series = history.generated if history else ()
            if not series and self.rows_by_run.get(stretch.run.number):
                return ()
            points += [(stretch.begin + min(at, stretch.seconds), before + number) for at, number in series]
            before = points[-1][1]
        return points

    @cached_property
    def bins(self) -> Sequence[Bin]:
        """The tokens generated in equal spans of the time of work; empty where that is not known."""
        points = self.generated
        if len(points) < 2 or not self.seconds:
            return ()
        number = min(_MAX_BINS, max(_MIN_BINS, len(points) // 3))
        edges = [self.seconds * i / number for i in range(number + 1)]
        totals = [_total_at(points, edge) for edge in edges]
        return [
            Bin(begin=edges[i], end=edges[i + 1], tokens=totals[i + 1] - totals[i]) for i in range(number)
        ]

    @property
    def prompts(self) -> Sequence[Share]:
        """The system prompts, in the order of the config; none where rows have none or share one."""
        prompts = self.build.identity.get("system_prompt")
        entries = prompts if isinstance(prompts, list) and len(prompts) > 1 else []
        rows = self.survey.system_prompts
        return [
            self._share(str(key or f"prompt {index}"), text, rows.get(text, 0), weight)
            for index, (key, text, weight) in enumerate(entries, 1)
        ]

    @property
    def samplings(self) -> Sequence[Share]:
        """The sampling settings by sampling_key; none where all rows are made with the same."""
        choices, rows = sampling_choices(self.build.identity), self.survey.samplings
        return [
            self._share(str(key), text, rows.get(key, 0), weight)
            for key, (text, weight) in enumerate(choices)
            if len(choices) > 1
        ]

    @cached_property
    def diversity(self) -> Sequence[GroupDiversity]:
        """How diverse the instructions are: all, by sampling_key, by system prompt; none for few rows."""
        survey = self.survey
        return diversity_by_group(survey.instructions, survey.samplings, survey.system_prompts)

    def group_name(self, group: GroupDiversity) -> str:
        """A group as the config and the columns call it, and what sets it apart."""
        if group.kind == "all":
            return "all instructions"
        if group.kind == "sampling":
            text = next((share.text for share in self.samplings if share.name == str(group.key)), "")
            return f"sampling_key {group.key}" + (f" ({text})" if text else "")
        if group.key is None:
            return "no system prompt"
        name = next((share.name for share in self.prompts if share.text == group.key), None)
        return f"system prompt {shortened(visible(name or str(group.key)), _NAME_CHARACTERS)}"

    def _share(self, name: str, text: str, rows: int, weight: float) -> Share:
        share = rows / max(1, self.survey.rows)
        return Share(name=name, text=text, rows=rows, share=share, weight=weight)


def _total_at(points: Sequence[tuple[float, float]], time: float) -> float:
    """The running total at a time, straight between two points."""
    after = bisect_right(points, time, key=itemgetter(0))
    (begin, low), (end, high) = points[after - 1], points[min(after, len(points) - 1)]
    return low + (high - low) * (time - begin) / (end - begin) if end > begin else low


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
