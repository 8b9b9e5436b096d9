"""cluster.yaml and the policies in jobs/aws, offline: by Ray's own launcher, and doubles of AWS."""

import copy
import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.validate import ParamValidator
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.aws.utils import resource_cache
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

from magpie_ray.config.loading import load_config
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
        iam.put_role_policy(RoleName="magpie-ray-head", PolicyName="head", PolicyDocument=policies["head"])
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


Asked = tuple[str, str, dict[str, str]]  # an action, on a resource, with the context that conditions see


def allowed(policy: dict[str, Any], asked: Asked) -> bool:
    """Whether a statement of the policy allows it, as IAM decides; moto knows no conditions of EC2."""
    action, resource, context = asked
    for statement in policy["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        equals = statement.get("Condition", {}).get("StringEquals", {})
        assert set(statement.get("Condition", {})) <= {"StringEquals"}
        if (
            any(fnmatchcase(action, each) for each in several(statement["Action"]))
            and any(fnmatchcase(resource, each) for each in several(statement["Resource"]))
            and all(context.get(key) in several(wanted) for key, wanted in equals.items())
        ):
            return True
    return False


def several(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def what_ec2_asks(call: str, given: dict[str, Any], owner: str | None) -> list[Asked]:
    """What IAM decides on for one call of Ray's. owner: the cluster whose instances the call names."""
    instance = "arn:aws:ec2:us-east-1:1:instance/i-1"
    tagged = {"aws:ResourceTag/ray-cluster-name": owner} if owner else {}
    if call == "DescribeInstances":
        return [("ec2:DescribeInstances", "*", {})]
    if call in ("CreateTags", "TerminateInstances"):
        return [(f"ec2:{call}", instance, tagged)]
    assert call == "RunInstances", call
    [tags] = [each["Tags"] for each in given["TagSpecifications"] if each["ResourceType"] == "instance"]
    assert len(given["TagSpecifications"]) == 1
    requested = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in tags}
    made = ["key-pair", "network-interface", "security-group", "subnet", "volume"]
    if "InstanceMarketOptions" in given:
        made.append("spot-instances-request")
    role = given["IamInstanceProfile"]["Name"]  # docs/ray-up.md gives both one name
    return [
        ("ec2:RunInstances", instance, requested),
        ("ec2:RunInstances", "arn:aws:ec2:us-east-1::image/x", {}),
        *(("ec2:RunInstances", f"arn:aws:ec2:us-east-1:1:{kind}/x", {}) for kind in made),
        ("ec2:CreateTags", instance, {"ec2:CreateAction": "RunInstances"}),
        ("iam:PassRole", f"arn:aws:iam::1:role/{role}", {"iam:PassedToService": "ec2.amazonaws.com"}),
        ("ssm:GetParameters", f"arn:aws:ssm:us-east-1::parameter{given['ImageId'].split(':')[2]}", {}),
    ]


HEAD = json.loads((ROOT / "jobs/aws/head.json").read_text())


def test_the_role_of_the_head_is_enough_to_launch_workers(aws: None) -> None:
    config = bootstrapped()
    provider = AWSNodeProvider(config["provider"], CONFIG["cluster_name"])
    calls: list[tuple[str, dict[str, Any]]] = []
    for resource in (provider.ec2, provider.ec2_fail_fast):
        resource.meta.client.meta.events.register(
            "provide-client-params.ec2",
            lambda params, model, **_: calls.append((model.name, copy.deepcopy(params))),
        )
    create(provider, config, "gpu_worker")
    [node] = provider.non_terminated_nodes({})
    provider.set_node_tags(node, {"seen": "yes"})
    provider.terminate_node(node)
    assert {"RunInstances", "DescribeInstances", "CreateTags", "TerminateInstances"} == {
        name for name, _ in calls
    }
    for name, given in calls:
        for asked in what_ec2_asks(name, given, CONFIG["cluster_name"]):
            assert allowed(HEAD, asked), asked


@pytest.mark.parametrize(
    "asked",
    [
        ("ec2:TerminateInstances", "arn:aws:ec2:us-east-1:1:instance/i-1", {}),
        (
            "ec2:TerminateInstances",
            "arn:aws:ec2:us-east-1:1:instance/i-1",
            {"aws:ResourceTag/ray-cluster-name": "another"},
        ),
        ("ec2:CreateTags", "arn:aws:ec2:us-east-1:1:instance/i-1", {}),  # to make it the cluster's own
        ("ec2:CreateTags", "arn:aws:ec2:us-east-1:1:volume/v-1", {"ec2:CreateAction": "RunInstances"}),
        ("ec2:RunInstances", "arn:aws:ec2:us-east-1:1:instance/*", {}),
        (
            "ec2:RunInstances",
            "arn:aws:ec2:us-east-1:1:instance/*",
            {"aws:RequestTag/ray-cluster-name": "another"},
        ),
        ("iam:PassRole", "arn:aws:iam::1:role/admin", {"iam:PassedToService": "ec2.amazonaws.com"}),
        (
            "iam:PassRole",
            "arn:aws:iam::1:role/magpie-ray-worker",
            {"iam:PassedToService": "lambda.amazonaws.com"},
        ),
        ("ec2:CreateKeyPair", "*", {}),
        ("ssm:GetParameters", "arn:aws:ssm:us-east-1:1:parameter/secret", {}),
    ],
    ids=lambda asked: f"{asked[0]} {asked[2]}",
)
def test_the_role_of_the_head_may_do_no_more(asked: Asked) -> None:
    assert not allowed(HEAD, asked)


def test_the_conditions_name_the_cluster() -> None:
    values = re.findall(r'ray-cluster-name": "([^"]+)"', (ROOT / "jobs/aws/head.json").read_text())
    assert set(values) == {CONFIG["cluster_name"]}
    assert "cache_stopped_nodes: false" in TEXT  # the role may not stop or start


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
