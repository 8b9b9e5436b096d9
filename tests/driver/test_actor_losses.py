"""What the user is told of an actor that was lost."""

import pytest

from magpie_ray.driver.actor_losses import explained
from magpie_ray.worker.events import Placed

PLACE = Placed(node_id="n", host="box", pid=7, log_path="")


def test_a_cause_has_the_last_lines_of_the_actors_log_and_no_secret() -> None:
    told = explained("died of key-1", PLACE, ["loading", "key-1 was refused"], secrets={"key-1"})
    assert "key-1" not in told
    assert told.startswith("died of ")
    assert "The last lines of its log (process 7 on box):\n    loading\n" in told
    assert explained("died", None, [], secrets=frozenset()) == "died"


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("OSError: [Errno 24] Too many open files: '/x'", "ulimit -n"),
        ("RuntimeError: can't start new thread", "ulimit -u"),
        ("OSError: [Errno 28] No space left on device", "TMPDIR"),
    ],
)
def test_a_limit_that_only_the_log_tells_of_is_told_with_its_remedy(line: str, remedy: str) -> None:
    first, *_ = explained("The actor died.", PLACE, [line], secrets=frozenset()).splitlines()
    assert first.startswith("The actor died. ")
    assert remedy in first
    assert explained(first, None, [line], secrets=frozenset()) == first, "it is told once"
