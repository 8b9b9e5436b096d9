"""What runs in an actor's process: ShardWorker, with a log of its own and a handler of SIGTERM."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import ray
from ray._private.worker import global_worker

from magpie_ray.driver.orphan_watchdog import watch_over_children
from magpie_ray.engine.vllm.args import set_log_environment
from magpie_ray.utils import logs
from magpie_ray.worker.events import Event, Placed
from magpie_ray.worker.spec import EngineFactory, WorkerSpec
from magpie_ray.worker.worker import ShardWorker

log = logging.getLogger(__name__)


class ShardProcess(ShardWorker):
    """ShardWorker in a process of its own: it logs to the actor's file, and SIGTERM calls `stop`."""

    def __init__(self, spec: WorkerSpec, engine_factory: EngineFactory | None) -> None:
        logs.set_up(spec.log_style)
        set_log_environment(spec.log_style)
        if spec.log_style.json:
            logs.take_over("ray")
        super().__init__(spec, engine_factory)
        watch_over_children()
        on_sigterm(self.stop)

    def run(self) -> Iterator[Event]:
        """Events of the worker, after one that says where this process runs."""
        yield Placed(
            node_id=ray.get_runtime_context().get_node_id(),
            host=socket.gethostname(),
            pid=os.getpid(),
            # No public call returns the path of a process's log.
            log_path=global_worker.get_err_file_path(),
        )
        yield from super().run()


def on_sigterm(callback: Callable[[], None]) -> None:
    """From now on SIGTERM calls `callback`, in a thread of its own, and does nothing else to this process.

    Ray's own handler ends the actor without a word to the method that runs. Call this in the actor's
    `__init__`, which Ray runs in the main thread. `callback` must be idempotent: every SIGTERM calls it.
    """

    def leave() -> None:
        log.warning("SIGTERM: this actor commits its finished rows and leaves")
        callback()

    def handle(_number: int, _frame: object) -> None:
        # A handler may interrupt code that holds a lock which the callback needs: hence the thread.
        threading.Thread(target=leave, name="sigterm", daemon=True).start()

    signal.signal(signal.SIGTERM, handle)
