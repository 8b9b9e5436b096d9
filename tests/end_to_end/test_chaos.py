"""`make chaos` in its short form: one build of 5,000 rows, every kind of actor and S3 fault once."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.chaos.ground import prepared
from tests.chaos.report import problems
from tests.chaos.scenarios import Scale, short

pytestmark = pytest.mark.end_to_end

_FAULTS = 25


def test_nothing_is_lost_or_doubled_whatever_actors_driver_and_store_suffer() -> None:
    home = Path(tempfile.mkdtemp(prefix="chaos-"))  # the names of Ray's sockets have no room for a tmp_path
    with prepared(home) as ground:
        head = ground.start_node(num_cpus=3).wait_until_up()
        ended = short(ground, head, Scale(seed=0, rows=5_000))
    found = problems([ended], _FAULTS)
    assert not found, "\n".join([*found, f"logs are in {home}"])
    shutil.rmtree(home)
