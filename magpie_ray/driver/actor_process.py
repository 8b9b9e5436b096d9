"""What runs in an actor's process: ShardWorker, with a log of its own and a handler of SIGTERM."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

import ray
from ray._private.worker import global_worker
from ray.util.placement_group import get_current_placement_group, placement_group_table

from magpie_ray.driver.orphan_watchdog import watch_over_children
from magpie_ray.engine.vllm.args import set_log_environment
from magpie_ray.utils import logs
from magpie_ray.utils.import_path import take_code_of_main
from magpie_ray.worker.events import Event, Placed
from magpie_ray.worker.output_check import check_output
from magpie_ray.worker.spec import EngineFactory, EngineStart, WorkerSpec
from magpie_ray.worker.worker import ShardWorker

log = logging.getLogger(__name__)


class ShardProcess(ShardWorker):
    """ShardWorker in a process of its own: it logs to the actor's file, and SIGTERM calls `stop`."""

    def __init__(self, shared: WorkerSpec, start: EngineStart, engine_factory: EngineFactory | None) -> None:
        spec = shared.of_start(start)
        logs.set_up(spec.log_style)
        set_log_environment(spec.log_style)
        if spec.log_style.json:
            logs.take_over("ray")
        take_code_of_main(spec.main_code)
        super().__init__(spec, engine_factory)
        watch_over_children()
        # Ray's own handler ends the actor without a word to `run`. Ray calls __init__ in the main thread.
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def run(self) -> Iterator[Event]:
        """Events of the worker, after one that says where this process runs.

        PreflightError when the output can't be used from there.
        """
        host = socket.gethostname()
        node_id = ray.get_runtime_context().get_node_id()
        yield Placed(
            node_id=node_id,
            host=host,
            pid=os.getpid(),
            # No public call returns the path of a process's log.
            log_path=global_worker.get_err_file_path(),
            others=other_nodes(node_id),
        )
        check_output(self._spec, host=host)
        yield from super().run()

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        # A handler may interrupt code that holds a lock which `stop` needs: hence the thread.
        threading.Thread(target=self._leave_on_notice, name="sigterm", daemon=True).start()

    def _leave_on_notice(self) -> None:
        log.warning("SIGTERM: this actor commits its finished rows and leaves")
        self.stop()


def other_nodes(own: str) -> tuple[tuple[str, str], ...]:
    """Ids and hosts of the other nodes on which this actor's placement group has bundles."""
    group = get_current_placement_group()
    if group is None:
        return ()
    ids = set(placement_group_table(group)["bundles_to_node_id"].values()) - {own}
    hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["NodeID"] in ids}
    return tuple(sorted(hosts.items()))
