"""`make chaos` in its short form: a build that meets all kinds of faults, and a pass whose source grows."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.chaos.faults import KILL, RAISES, TERM
from tests.chaos.ground import prepared
from tests.chaos.report import problems
from tests.chaos.scenarios import Scale, passes, short

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


# The scenario `passes` of `make chaos`, small: on a fast machine it leaves little time for its faults.
@pytest.mark.again
def test_answers_stay_with_their_rows_whatever_a_pass_over_a_growing_source_suffers() -> None:
    home = Path(tempfile.mkdtemp(prefix="chaos-"))
    with prepared(home) as ground:
        head = ground.start_node(num_cpus=4).wait_until_up()
        kinds = {KILL: 2, RAISES: 1, TERM: 1}
        ended = passes(ground, head, Scale(seed=0, rows=6_000), harm=4, s3=6, kinds=kinds)
    found = problems([ended], 12)
    assert not found, "\n".join([*found, f"logs are in {home}"])
    assert ended.rows.num_rows == 6_000
    shutil.rmtree(home)
