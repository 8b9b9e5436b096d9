"""cluster.yaml, checked offline by what would read it: Ray's launcher and the EC2 API's own shapes."""

import botocore.session
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.end_to_end.cluster import ROOT

CONFIG = yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_takes_it() -> None:
    validate_config(prepare_config(CONFIG))


def test_ec2_knows_every_setting_of_the_nodes() -> None:
    shapes = botocore.session.get_session().get_service_model("ec2")
    run_instances = shapes.operation_model("RunInstances").input_shape
    for node in CONFIG["available_node_types"].values():
        settings = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(settings, run_instances)
        assert not report.has_errors(), report.generate_report()


def test_no_actor_runs_on_the_head_and_workers_cost_nothing_while_idle() -> None:
    types = CONFIG["available_node_types"]
    assert types[CONFIG["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["gpu_worker"]["min_workers"] == 0
    assert types["gpu_worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
