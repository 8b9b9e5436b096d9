"""What Prometheus finds on Ray's metrics endpoint, read as Prometheus reads it."""

import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from magpie_ray import generate, load_config
from magpie_ray.config.schema import Config
from magpie_ray.counters import Tally
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.monitoring.metrics import exported_names
from magpie_ray.monitoring.status import read_status
from magpie_ray.storage.storage import Storage
from tests.end_to_end.cluster import ROOT, RayCluster, connected, running_cluster
from tests.end_to_end.faulty_engines import Paced
from tests.end_to_end.test_ray_actors import DiesOnce
from tests.monitoring.dashboard import metric_names, queries
from tests.support.engines import ScriptedEngine

# Ray's own client code warns of resources it closes late.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore::ResourceWarning")]

Labels = frozenset[tuple[str, str]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """One that exports its metrics every second, with this process as a driver."""
    home = tmp_path_factory.mktemp("ray")
    with (
        running_cluster(
            {"RAY_metrics_report_interval_ms": "1000"}, num_cpus=3, num_gpus=0, home=home
        ) as running,
        connected(running),
    ):
        yield running


def scraped() -> dict[str, dict[Labels, float]]:
    """Values by exported name and labels, Ray's own labels left out."""
    [node] = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found = defaultdict[str, dict[Labels, float]](dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            ours = {"build", "run", "role", "reason", "of", "state", "le"}
            labels = frozenset((key, value) for key, value in sample.labels.items() if key in ours)
            found[sample.name][labels] = sample.value
    return found


_unmet = retry_if_exception_type(AssertionError)
patiently = retry(stop=stop_after_delay(20), wait=wait_fixed(0.2), retry=_unmet, reraise=True)


@patiently
def assert_exported(build: str, run: int, wanted: Mapping[str, Mapping[str, float]]) -> None:
    """Values by name and by the one label beside build and run ("" without); soon, as Ray passes them on."""
    found = scraped()
    for name, values in wanted.items():
        told = {
            next((v for k, v in labels if k not in ("build", "run")), ""): value
            for labels, value in found[f"ray_magpie_ray_{name}"].items()
            if ("build", build) in labels and ("run", str(run)) in labels
        }
        assert told == values, name


def written_by(output: Path, run: int) -> Tally:
    """All that is behind the files of a run."""
    records = read_status(Storage(str(output))).records
    return Tally.sum(record for record in records if record.run == run)


class Scraper:
    """A context that scrapes all the time and keeps every value it has seen: gauges vanish with their run.

    Of samples with the label `build`, only those of the build given are kept. Once every name of `above_zero`
    has been seen with a value above zero, the file `then` is created.
    """

    def __init__(self, build: str = "", above_zero: Iterable[str] = (), then: Path | None = None) -> None:
        self._build, self._above_zero, self._then = build, tuple(above_zero), then
        self.seen = defaultdict[str, set[float]](set)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._scrape)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _scrape(self) -> None:
        while not self._over.wait(0.2):
            for name, values in scraped().items():
                for labels, value in values.items():
                    if dict(labels).get("build", self._build) == self._build:
                        self.seen[name].add(value)
            if self._then and all(max(self.seen[name], default=0) > 0 for name in self._above_zero):
                self._then.touch()

    @patiently
    def wait_for(self, at_least: Mapping[str, float]) -> None:
        """Until every name has been seen with its value or more."""
        highest = {name: max(self.seen[name], default=-1) for name in at_least}
        assert all(highest[name] >= value for name, value in at_least.items()), highest


def config(output: Path, *overrides: str) -> Config:
    settings = ["n_turns=2", "engine.device=cpu", "output.rows_per_partition=25", "cluster.num_actors=2"]
    return load_config(None, [*settings, "acceptance.max_attempts=100", f"output.path={output}", *overrides])


def test_counters_agree_with_the_files_though_an_actor_is_lost_and_the_build_resumed(
    cluster: RayCluster, tmp_path: Path
) -> None:
    output = tmp_path / "build"
    generate(config(output, "num_rows=300"), engine_factory=DiesOnce(tmp_path / "died"))
    generate(config(output, "num_rows=400"), engine_factory=ScriptedEngine(reject_every=20))
    for run, rows, lost in ((1, 300, 1), (2, 100, 0)):
        tally = written_by(output, run)
        assert tally.rows == rows
        wanted = {
            "rows_total": {"": rows},
            "tokens_total": {"user": tally.user_tokens, "assistant": tally.assistant_tokens},
            "attempts_total": {"accepted": rows, **tally.rejected},
            "lost_actors_total": {"": lost} if lost else {},
        }
        assert_exported(str(output), run, wanted)


def test_every_metric_is_there_with_plausible_values(cluster: RayCluster, tmp_path: Path) -> None:
    output, seen_file = tmp_path / "build", tmp_path / "seen"
    crowded = EngineFigures(max_num_seqs=16, kv_cache_tokens=512, max_model_len=512)
    scripted = ScriptedEngine(reject_every=20, figures=crowded)
    # Gauges are passed on every few seconds, so the build takes as long as it takes to see them at work.
    paced = Paced(seconds=0.05, hurry_file=str(seen_file), inner=scripted)
    ratios = [f"ray_magpie_ray_{name}_ratio" for name in ("batch_occupancy", "kv_cache_use", "prefix_hit")]
    with Scraper(str(output), above_zero=ratios, then=seen_file) as scraper:
        generate(config(output, "num_rows=300"), engine_factory=DiesOnce(tmp_path / "died", inner=paced))
        # The actor dies before it has told of a row: what was lost with it is not known.
        wanted = dict.fromkeys(set(exported_names()) - {"ray_magpie_ray_lost_rows_total"}, 0.0)
        # A partition that two actors had open is observed twice.
        histograms = ("partition_seconds_count", "upload_seconds_count")
        wanted |= {f"ray_magpie_ray_{name}": 300 / 25 for name in histograms}
        scraper.wait_for(wanted | {"ray_magpie_ray_generated_rows_total": 300})
    for ratio in ratios:
        assert 0 < max(scraper.seen[ratio]) <= 1
    assert max(scraper.seen["ray_magpie_ray_actors"]) in (1, 2)
    assert max(scraper.seen["ray_magpie_ray_build_target_rows"]) == 300


def test_with_real_vllm_the_dashboard_asks_for_nothing_that_is_not_there(
    cluster: RayCluster, tmp_path: Path
) -> None:
    real = load_config(
        str(ROOT / "jobs/configs/demo.yaml"),
        [
            "num_rows=200",
            "engine.vllm_metrics=true",
            "cluster.num_actors=1",
            f"output.path={tmp_path / 'build'}",
        ],
    )
    asked = {name for query in queries() for name in metric_names(query)}
    theirs = {name for name in asked if name.startswith("ray_vllm_")}
    assert len(theirs) > 5
    with Scraper(real.output.path) as scraper:
        result = generate(real)
        scraper.wait_for(dict.fromkeys(theirs, 0.0) | {"ray_vllm_generation_tokens_total": result.tokens})
    nodes = {name for name in asked if name.startswith("ray_node_") and "_gpus_" not in name}
    assert nodes <= scraper.seen.keys()
