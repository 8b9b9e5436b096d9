"""The watchdog over children: real processes, really killed."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from magpie_ray.driver import orphan_watchdog

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

# Children and grandchildren, in this session and in others; they ignore what a polite end would send.
_FAMILY = """
import subprocess, sys
from magpie_ray.driver.orphan_watchdog import watch_over_children

watch_over_children()
shell = "trap '' TERM HUP; sleep 600 & setsid sleep 600 & echo started; wait"
for command in (["sh", "-c", shell], ["setsid", "sh", "-c", shell]):
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
print("ready", flush=True)
sys.stdin.readline()
"""

# A spawned process with shared memory, as vLLM's are. It prints the memory's name.
_SHARED_MEMORY = """
import multiprocessing, sys, time
from multiprocessing.shared_memory import SharedMemory
from magpie_ray.driver.orphan_watchdog import watch_over_children

def engine(names):
    memory = SharedMemory(create=True, size=4096)
    names.send(memory.name)
    time.sleep(600)

if __name__ == "__main__":
    watch_over_children()
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe()
    context.Process(target=engine, args=(sender,)).start()
    print(receiver.recv(), flush=True)
    sys.stdin.readline()
"""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process that runs one of the scripts, what it said, and whom it has started."""

    process: subprocess.Popen[str]
    said: str
    family: list[psutil.Process]
    watchdog: psutil.Process


@contextlib.contextmanager
def holder(script: str, folder: Path) -> Iterator[Holder]:
    path = folder / "holder.py"
    path.write_text(script)
    command = [sys.executable, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        family = psutil.Process(process.pid).children(recursive=True)
        watching = [orphan_watchdog.__file__, str(process.pid)]
        everyone = psutil.process_iter(["cmdline"])
        (watchdog,) = [other for other in everyone if (other.info["cmdline"] or [])[2:4] == watching]
        try:
            yield Holder(process=process, said=said, family=family, watchdog=watchdog)
        finally:
            process.kill()
            for child in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def all_end(*processes: psutil.Process, within_seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within_seconds)
    return not alive


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_all_that_a_killed_process_has_started_is_killed_and_nothing_else(
    stranger: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with holder(_FAMILY, tmp_path) as held:
        assert len(held.family) == 6
        held.family[0].send_signal(signal.SIGSTOP)
        held.process.kill()
        assert all_end(*held.family, within_seconds=5)
        assert all_end(held.watchdog, within_seconds=10)
        assert stranger.poll() is None


def test_an_orderly_end_leaves_no_children_either(tmp_path: Path) -> None:
    with holder(_FAMILY, tmp_path) as held:
        held.process.communicate("\n", timeout=10)
        assert held.process.returncode == 0
        assert all_end(*held.family, within_seconds=5)
        assert all_end(held.watchdog, within_seconds=10)


def test_children_stay_as_long_as_their_process_does(
    tmp_path: Path,
) -> None:
    with holder(_FAMILY, tmp_path) as held:
        assert not all_end(held.watchdog, within_seconds=orphan_watchdog.QUIET_SECONDS + 1)
        assert all(child.is_running() for child in held.family)


def test_shared_memory_of_the_killed_is_given_back(tmp_path: Path) -> None:
    with holder(_SHARED_MEMORY, tmp_path) as held:
        shared = Path("/dev/shm", held.said)
        assert shared.exists()
        held.process.kill()
        assert all_end(*held.family, within_seconds=orphan_watchdog.TRACKER_SECONDS)
        assert not shared.exists()


def test_two_holders_do_not_kill_each_others_children(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with holder(_FAMILY, tmp_path) as held, holder(_FAMILY, tmp_path / "other") as other:
        held.process.kill()
        assert all_end(*held.family, held.watchdog, within_seconds=10)
        assert all(child.is_running() for child in other.family)
