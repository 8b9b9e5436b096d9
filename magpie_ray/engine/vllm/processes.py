"""The processes of a vLLM engine, and how one of them ended.

An engine that the environment puts into a process of its own (VLLM_ENABLE_V1_MULTIPROCESSING=1) leaves its
caller waiting for ever once that process is killed: vLLM (0.32) notices, and tells nobody who waits. Where a
worker of an engine over several GPUs is killed, the call ends at once, with the word "cancelled".
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import wait
from typing import Any

# Another thread may have collected the exit code, and not yet have noted it.
_CODE_SECONDS = 1.0


class ProcessWatch:
    """A thread that waits until one of the processes, of `multiprocessing`, has ended.

    wake: called with the end as text, to end a wait for the engine.
    """

    def __init__(self, processes: Iterable[Any], wake: Callable[[str], object] = lambda end: None) -> None:
        self._processes, self._wake, self._end = list(processes), wake, ""
        self._thread = threading.Thread(target=self._watch, name="engine-processes", daemon=True)
        if self._processes:
            self._thread.start()

    def end(self, seconds: float) -> str:
        """How the first process ended, as a clause; "" if none does within so many seconds."""
        if self._processes:
            self._thread.join(seconds)
        return self._end

    def _watch(self) -> None:
        by_sentinel = {process.sentinel: process for process in self._processes}
        first = by_sentinel[wait(list(by_sentinel))[0]]
        until = time.monotonic() + _CODE_SECONDS
        while first.exitcode is None and time.monotonic() < until:
            time.sleep(0.01)
        self._end = f"its process {first.name} {_told(first.exitcode)}"
        self._wake(self._end)


def watch_processes(llm_engine: Any) -> ProcessWatch:
    """A watch over the core process of a vLLM LLMEngine, or its workers; over none where it has none."""
    client = llm_engine.engine_core
    manager = getattr(getattr(client, "resources", None), "engine_manager", None)
    if processes := getattr(manager, "processes", None):
        outputs = client.outputs_queue
        return ProcessWatch(processes, lambda end: outputs.put_nowait(RuntimeError(end)))
    executor = getattr(getattr(client, "engine_core", None), "model_executor", None)
    workers = getattr(executor, "workers", None) or []
    return ProcessWatch(worker.proc for worker in workers if hasattr(worker, "proc"))  # Ray's have none


def _told(code: int | None) -> str:
    if code is None or code >= 0:
        return "died" if code is None else f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "?"
    memory = ", as the system does when memory is short" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({name}{memory})"
