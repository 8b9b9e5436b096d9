"""Whether an existing build is resumed, skipped or refused."""

from collections.abc import Callable

import pytest

from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.layout import heartbeat_key, to_json
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.errors import BuildExistsError
from magpie_ray.preflight.if_exists import WATCH_SECONDS, reason_to_leave
from magpie_ray.storage.storage import Storage
from tests.support.builds import build_of, complete_build, memory_storage


def begun(*, runs: int = 1) -> tuple[Storage, list[RunRecord]]:
    storage = memory_storage()
    build_record.open_build(storage, build_of())
    return storage, [run_records.start_run(storage, num_rows=10, host="here", config={}) for _ in range(runs)]


class Wait:
    """A clock that moves when somebody sleeps; `meanwhile` happens then, with the seconds so far."""

    def __init__(self, meanwhile: Callable[[float], None] = lambda _: None) -> None:
        self.seconds = 0.0
        self._meanwhile = meanwhile

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self._meanwhile(self.seconds)


def skip(storage: Storage, wait: Wait) -> str | None:
    return reason_to_leave(storage, "skip", clock=wait, sleep=wait.sleep)


def test_resume_does_not_look() -> None:
    assert reason_to_leave(memory_storage(), "resume") is None


def test_fail_refuses_with_the_exit_code_of_a_decision() -> None:
    storage, _ = begun()
    with pytest.raises(BuildExistsError, match="--if-exists is fail") as caught:
        reason_to_leave(storage, "fail")
    assert caught.value.exit_code == 2


def test_a_complete_build_is_skipped_at_once() -> None:
    storage, wait = memory_storage(), Wait()
    complete_build(storage)
    assert skip(storage, wait) == "it is complete"
    assert wait.seconds == 0


def test_a_build_whose_driver_beats_is_skipped() -> None:
    storage, [run] = begun()
    storage.replace(heartbeat_key(run.number), to_json({"written": "0"}))
    wait = Wait(lambda now: storage.replace(heartbeat_key(run.number), to_json({"written": f"{now // 30}"})))
    assert skip(storage, wait) == "run 1 is at work on it"
    assert wait.seconds <= 35


def test_a_build_whose_driver_died_is_gone_on_with_after_a_while() -> None:
    storage, [run] = begun()
    storage.replace(heartbeat_key(run.number), to_json({"written": "0"}))
    wait = Wait()
    assert skip(storage, wait) is None
    assert WATCH_SECONDS <= wait.seconds <= WATCH_SECONDS + 5


@pytest.mark.parametrize("outcome", ["interrupted", "failed"])
def test_a_build_whose_last_run_has_ended_is_gone_on_with_at_once(outcome: str) -> None:
    storage, [run] = begun()
    run_records.end_run(storage, run, outcome=outcome)
    wait = Wait()
    assert skip(storage, wait) is None
    assert wait.seconds == 0


def test_a_build_that_has_just_been_begun_is_watched() -> None:
    storage, _ = begun(runs=0)

    def begin(now: float) -> None:
        if now == 10:
            run_records.start_run(storage, num_rows=10, host="there", config={})

    wait = Wait(begin)
    assert skip(storage, wait) == "run 1 is at work on it"
    storage, _ = begun(runs=0)
    assert skip(storage, Wait()) is None


def test_a_build_that_gets_complete_while_it_is_watched_is_skipped() -> None:
    storage, [run] = begun()

    def end(_: float) -> None:
        run_records.end_run(storage, run, outcome="done")
        manifest.mark_complete(storage)

    assert skip(storage, Wait(end)) == "it is complete"


def test_one_dead_run_of_two_does_not_hide_the_live_one() -> None:
    storage, [dead, live] = begun(runs=2)
    storage.replace(heartbeat_key(dead.number), to_json({"written": "0"}))
    wait = Wait(lambda now: storage.replace(heartbeat_key(live.number), to_json({"written": f"{now}"})))
    assert skip(storage, wait) == "run 2 is at work on it"
