"""jobs/anyscale, loaded with the anyscale package's own models."""

import datetime
import re
import zoneinfo
from pathlib import Path

import pytest
import yaml
from anyscale.job.models import JobConfig
from anyscale.schedule.models import ScheduleConfig
from cronsim import CronSim

from magpie_ray.config.loading import load_config
from tests.launch.files import ROOT, entrypoint_of

JOB = ROOT / "jobs/anyscale/job.yaml"
SCHEDULE = ROOT / "jobs/anyscale/schedule.yaml"


def written(path: Path, target: Path, change: str) -> str:
    """A copy of the file with one line more."""
    target.write_text(f"{path.read_text()}\n{change}\n")
    return str(target)


def test_anyscale_takes_both_and_the_schedule_runs_the_job() -> None:
    job = JobConfig.from_yaml(str(JOB))
    schedule = ScheduleConfig.from_yaml(str(SCHEDULE))
    assert isinstance(schedule.job_config, JobConfig)
    assert schedule.job_config.to_dict() == job.to_dict()


@pytest.mark.parametrize("change", ["max_retry: 3", "timeout_s: a day", "tags: [nightly]"])
def test_a_slip_would_be_seen(tmp_path: Path, change: str) -> None:
    text = "\n".join(line for line in JOB.read_text().splitlines() if not line.startswith("timeout_s"))
    (tmp_path / "base.yaml").write_text(text)
    with pytest.raises((TypeError, ValueError)):
        JobConfig.from_yaml(written(tmp_path / "base.yaml", tmp_path / "job.yaml", change))


def test_the_schedule_is_one_and_gives_each_day_one_build() -> None:
    schedule = ScheduleConfig.from_yaml(str(SCHEDULE))
    start = datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo(schedule.timezone))
    ticks = CronSim(schedule.cron_expression, start)
    assert next(ticks).date() < next(ticks).date()


def test_the_entrypoint_would_run() -> None:
    job = yaml.safe_load(JOB.read_text())
    path, overrides = entrypoint_of(job["entrypoint"])
    config = load_config(path, overrides)
    [workers] = job["compute_config"]["worker_nodes"]
    assert config.cluster.num_actors == workers["max_nodes"]
    assert workers["min_nodes"] == 0
    assert job["compute_config"]["head_node"]["resources"] == {"CPU": 0}


def test_its_environment_is_that_of_a_submitted_job_and_holds_no_secret() -> None:
    job = yaml.safe_load(JOB.read_text())
    submitted = yaml.safe_load((ROOT / "jobs/runtime_env.yaml").read_text())
    assert job["env_vars"] == submitted["env_vars"]
    assert set(submitted["excludes"]) <= set(job["excludes"])
    assert not re.search("TOKEN: |SECRET: |PASSWORD: |_KEY: ", JOB.read_text())
