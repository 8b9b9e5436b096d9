"""cluster.yaml and the policies in jobs/aws, offline: by Ray's own launcher, and doubles of AWS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.aws.utils import resource_cache
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

from magpie_ray.config.schema import load_config
from tests.launch.files import ROOT, entrypoint_of

pytestmark = pytest.mark.slow  # Ray's launcher takes seconds to import

TEXT = (ROOT / "cluster.yaml").read_text()
CONFIG = yaml.safe_load(TEXT)
TYPES = CONFIG["available_node_types"]


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An AWS account in memory, with the two roles that docs/ray-up.md has one make."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray puts the key of the machines there
    for name, value in {
        "ACCESS_KEY_ID": "x",
        "SECRET_ACCESS_KEY": "x",
        "DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    policies = {path.stem: path.read_text() for path in (ROOT / "jobs/aws").glob("*.json")}
    with mock_aws():
        iam = boto3.client("iam")
        for name in ("magpie-ray-head", "magpie-ray-worker"):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=policies["trust"])
            iam.put_role_policy(RoleName=name, PolicyName="bucket", PolicyDocument=policies["bucket"])
            iam.create_instance_profile(InstanceProfileName=name)
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        iam.create_user(UserName="head")
        iam.put_user_policy(UserName="head", PolicyName="head", PolicyDocument=policies["head"])
        yield
    resource_cache.cache_clear()


def test_ray_takes_it() -> None:
    validate_config(prepare_config(CONFIG))


def test_ec2_knows_every_setting_of_the_nodes() -> None:
    run_instances = boto3.client("ec2", "us-east-1").meta.service_model.operation_model("RunInstances")
    for node in TYPES.values():
        settings = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(settings, run_instances.input_shape)
        assert not report.has_errors(), report.generate_report()


def test_no_actor_runs_on_the_head_and_workers_cost_nothing_while_idle() -> None:
    assert TYPES[CONFIG["head_node_type"]]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in TYPES[CONFIG["head_node_type"]]["node_config"]
    assert TYPES["gpu_worker"]["min_workers"] == 0
    assert TYPES["gpu_worker"]["max_workers"] == CONFIG["max_workers"]


def test_ray_launches_what_it_says(aws: None) -> None:
    launched = launch("head"), launch("gpu_worker")
    assert [node["InstanceType"] for node in launched] == ["m6i.xlarge", "g6e.2xlarge"]
    assert [node.get("InstanceLifecycle") for node in launched] == [None, "spot"]
    profiles = [node["IamInstanceProfile"]["Arn"].split("/")[1] for node in launched]
    assert profiles == ["magpie-ray-head", "magpie-ray-worker"]


def test_the_role_of_the_head_is_enough_to_launch_workers_and_no_more(aws: None) -> None:
    key = boto3.client("iam").create_access_key(UserName="head")["AccessKey"]
    credentials = {
        "aws_access_key_id": key["AccessKeyId"],
        "aws_secret_access_key": key["SecretAccessKey"],
    }
    config = bootstrapped()

    @set_initial_no_auth_action_count(0)  # from here on, IAM is asked
    def act() -> None:
        provider = AWSNodeProvider({**config["provider"], "aws_credentials": credentials}, "magpie-ray")
        create(provider, config, "gpu_worker")
        [node] = provider.non_terminated_nodes({})
        provider.set_node_tags(node, {"seen": "yes"})
        provider.terminate_node(node)
        with pytest.raises(ClientError, match="not authorized"):
            boto3.client("ec2", **credentials).create_key_pair(KeyName="x")

    act()


def bootstrapped() -> dict[str, Any]:
    """The config as `ray up` completes it: key, subnets and security group of the account."""
    config: dict[str, Any] = bootstrap_aws(prepare_config(yaml.safe_load(TEXT)))
    return config


def create(provider: AWSNodeProvider, config: dict[str, Any], kind: str) -> None:
    tags = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: kind}
    provider.create_node(config["available_node_types"][kind]["node_config"], tags, 1)


def launch(kind: str) -> dict[str, Any]:
    """What EC2 tells of a node that Ray has launched."""
    config = bootstrapped()
    create(AWSNodeProvider(config["provider"], "magpie-ray"), config, kind)
    described = boto3.client("ec2").describe_instances(
        Filters=[{"Name": f"tag:{TAG_RAY_USER_NODE_TYPE}", "Values": [kind]}]
    )
    node: dict[str, Any] = described["Reservations"][0]["Instances"][0]
    return node


def test_the_job_in_its_comment_asks_for_the_workers_it_may_have() -> None:
    lines = [line.removeprefix("#").strip() for line in TEXT.splitlines() if line.startswith("#")]
    command = " ".join(lines).split(" -- \\ ")[1].split(" ray down")[0]
    path, overrides = entrypoint_of(command)
    assert load_config(path, overrides).cluster.num_actors == CONFIG["max_workers"]
