"""What runs in an actor's process: ShardWorker, with a log of its own and a handler of SIGTERM."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

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
        # Ray's own handler ends the actor without a word to `run`. Ray calls __init__ in the main thread.
        signal.signal(signal.SIGTERM, self._on_sigterm)

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

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        # A handler may interrupt code that holds a lock which `stop` needs: hence the thread.
        threading.Thread(target=self._leave_on_notice, name="sigterm", daemon=True).start()

    def _leave_on_notice(self) -> None:
        log.warning("SIGTERM: this actor commits its finished rows and leaves")
        self.stop()
