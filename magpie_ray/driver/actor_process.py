"""What runs in an actor's process: ShardWorker, with a log, and with an ear for the node's last notice."""

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
    """ShardWorker in a process of its own: its log goes to the actor's file, SIGTERM means `stop`."""

    def __init__(self, spec: WorkerSpec, engine_factory: EngineFactory | None) -> None:
        logs.set_up(spec.log_style)
        set_log_environment(spec.log_style)
        if spec.log_style.json:
            logs.take_over("ray")
        super().__init__(spec, engine_factory)
        watch_over_children()
        on_sigterm(self.stop)

    def run(self) -> Iterator[Event]:
        """Say where this is, then work as every worker does."""
        yield Placed(
            node_id=ray.get_runtime_context().get_node_id(),
            host=socket.gethostname(),
            pid=os.getpid(),
            # No public call tells where a process logs.
            log_path=global_worker.get_err_file_path(),
        )
        yield from super().run()


def on_sigterm(callback: Callable[[], None]) -> None:
    """From now on SIGTERM calls `callback`, in a thread of its own, and does nothing else to this process.

    Ray's own handler ends the actor without telling the method that runs. To be called in the actor's
    `__init__`, which Ray runs in the main thread. Every SIGTERM calls: the callback is to be idempotent.
    """

    def tell() -> None:
        log.warning("SIGTERM: finished rows are committed, then this actor leaves")
        callback()

    def note(_number: int, _frame: object) -> None:
        # Not here: a handler may have interrupted code that holds a lock which the callback wants.
        threading.Thread(target=tell, name="sigterm", daemon=True).start()

    signal.signal(signal.SIGTERM, note)
