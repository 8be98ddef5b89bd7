"""The stack as CloudFormation deployed it: its functions, their roles, and how to change it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

from deploy.functions import Function
from deploy.packaging import Package
from deploy.policies import FUNCTIONS
from tests.localcloud.interposer import REGION
from tests.localcloud.patience import wait_until
from tests.stack.ministack import Ministack
from tests.stack.needs import Template
from tests.stack.router import Caller

_BUCKET = "nightvault-artifacts"
_ENDED = ("_COMPLETE", "_FAILED")


class StackFailed(Exception):
    """CloudFormation gave up; the message says on which resource, and why."""


class Deployed:
    """One stack on a ministack. Every question is asked of the emulator; answers that can't change are kept."""

    def __init__(self, emulator: Ministack, name: str) -> None:
        self.name = name
        self._emulator = emulator
        self._callers: dict[str, Caller] = {}
        self._policies: dict[str, list[Mapping[str, Any]]] = {}
        self._keys: dict[str, Set[str]] = {}
        self._client = emulator.client
        self._client("s3").create_bucket(Bucket=_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})

    # deploying

    def create(self, package: Package, **parameters: str) -> None:
        """Raises StackFailed."""
        self._cloudformation("create_stack", self._uploaded(package.uploaded(_BUCKET), package), parameters)
        self.settle("CREATE_COMPLETE")

    def begin_update(self, package: Package, template: dict[str, Any] | None = None, **parameters: str) -> None:
        """To another zip, other parameters (those that are not named stay) or, where a test wants one, a template."""
        kept = [
            each["ParameterKey"] for each in self.describe()["Parameters"] if each["ParameterKey"] not in parameters
        ]
        url = self._uploaded(template or package.uploaded(_BUCKET), package)
        self._cloudformation("update_stack", url, parameters, kept)

    def settle(self, wanted: str) -> None:
        """Waits until CloudFormation has ended. StackFailed if not with this status."""
        wait_until(lambda: self.describe()["StackStatus"].endswith(_ENDED), 120, what="CloudFormation has ended")
        self.forget()
        if (status := self.describe()["StackStatus"]) != wanted:
            raise StackFailed(f"{status}: {self.failures()}")

    def failures(self) -> list[str]:
        events = self._client("cloudformation").describe_stack_events(StackName=self.name)["StackEvents"]
        return [
            f"{each['LogicalResourceId']}: {each.get('ResourceStatusReason', '')}"
            for each in events
            if each["ResourceStatus"].endswith("_FAILED")
        ]

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0]
        return found

    def forget(self) -> None:
        """What was kept may have changed."""
        self._callers.clear()
        self._policies.clear()

    def _uploaded(self, template: dict[str, Any], package: Package) -> str:
        s3 = self._client("s3")
        s3.put_object(Bucket=_BUCKET, Key=package.zip_key, Body=package.zip_path.read_bytes())
        body = json.dumps(template).encode()
        key = f"{hashlib.sha256(body).hexdigest()[:32]}.json"
        s3.put_object(Bucket=_BUCKET, Key=key, Body=body)
        return f"{self._emulator.url}/{_BUCKET}/{key}"

    def _cloudformation(self, call: str, url: str, chosen: Mapping[str, str], kept: Iterable[str] = ()) -> None:
        parameters: list[dict[str, Any]] = [
            {"ParameterKey": key, "ParameterValue": value} for key, value in chosen.items()
        ]
        parameters += [{"ParameterKey": key, "UsePreviousValue": True} for key in kept]
        getattr(self._client("cloudformation"), call)(
            StackName=self.name,
            TemplateURL=url,
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=parameters,
        )

    # what there is

    @property
    def api_url(self) -> str:
        """Where API Gateway is reached on this machine."""
        return f"{self._emulator.url}/restapis/{self.output('RestAPIId')}/api/_user_request_"

    def output(self, name: str) -> str:
        outputs = {each["OutputKey"]: each["OutputValue"] for each in self.describe()["Outputs"]}
        return str(outputs[name])

    def function(self, name: str) -> str:
        """A function's name in the account, by that in app.py."""
        return f"{self.name}-{Function(name).suffix}"

    def invoke(self, name: str, event: Mapping[str, Any]) -> Any:
        """Its answer. RuntimeError with what it raised."""
        answer = self._client("lambda").invoke(FunctionName=self.function(name), Payload=json.dumps(event))
        said = answer["Payload"].read().decode()
        if answer.get("FunctionError"):
            raise RuntimeError(f"{name}: {said}")
        return json.loads(said) if said else None

    def pause_schedule(self) -> None:
        """The deployed schedule fires no more: only the test sweeps."""
        for rule in self.rules():
            if "ScheduleExpression" in rule:
                self._client("events").disable_rule(Name=rule["Name"])

    def rules(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client("events").list_rules()["Rules"]
        return found

    def logged(self, name: str) -> list[str]:
        """Everything that a function has logged."""
        pages = self._client("logs").get_paginator("filter_log_events")
        group = f"/aws/lambda/{self.function(name)}"
        return [event["message"] for page in pages.paginate(logGroupName=group) for event in page["events"]]

    def template_of_vaults(self) -> dict[str, Any]:
        """What the deployed launch template holds, by its newest version."""
        found = self._client("ec2").describe_launch_template_versions(
            LaunchTemplateName=f"{self.name}-vault", Versions=["$Latest"]
        )
        version: dict[str, Any] = found["LaunchTemplateVersions"][0]
        return version

    # who may do what

    def caller(self, access_key: str) -> Caller:
        """Whoever has that key: a function, by the credentials of its role that ministack gives its workers."""
        if not self._callers:
            self._callers = {self._key_of_worker(each): self._as_caller(each) for each in FUNCTIONS}
        return self._callers.get(access_key) or Caller("a stranger", list)

    def keys_of_workers(self) -> list[str]:
        return [self._key_of_worker(each) for each in FUNCTIONS]

    def policies(self, function: Function) -> list[Mapping[str, Any]]:
        """Those of its deployed role."""
        if function.name not in self._policies:
            iam, role = self._client("iam"), self._role(function)
            if iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
                raise NotImplementedError(f"{role} has managed policies, which are not read here")
            names = iam.list_role_policies(RoleName=role)["PolicyNames"]
            self._policies[function.name] = [
                iam.get_role_policy(RoleName=role, PolicyName=each)["PolicyDocument"] for each in names
            ]
        return self._policies[function.name]

    @contextmanager
    def without(self, function: Function, action: str) -> Iterator[None]:
        """The function's deployed role without that action, in whatever statement it stands."""
        iam, role = self._client("iam"), self._role(function)
        (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
        whole = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        statements = [
            {**each, "Action": [one for one in each["Action"] if one != action]} for each in whole["Statement"]
        ]
        less = {**whole, "Statement": [each for each in statements if each["Action"]]}
        if less == whole:
            raise LookupError(f"{function.name} may not {action} anyway")
        self._put(role, name, less)
        try:
            yield
        finally:
            self._put(role, name, whole)

    def _put(self, role: str, name: str, document: Mapping[str, Any]) -> None:
        self._client("iam").put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))
        self._policies.clear()

    def _as_caller(self, function: Function) -> Caller:
        return Caller(function.name, lambda: self.policies(function))

    def _role(self, function: Function) -> str:
        return str(self._configuration(function)["Role"].rpartition("/")[2])

    def _key_of_worker(self, function: Function) -> str:
        """As ministack.core.lambda_runtime.execution_credentials makes it."""
        configuration = self._configuration(function)
        digest = hashlib.sha256(f"{configuration['FunctionArn']}:{configuration['Role']}".encode()).hexdigest()
        return f"ASIA{digest[:16].upper()}"

    def _configuration(self, function: Function) -> dict[str, Any]:
        found: dict[str, Any] = self._client("lambda").get_function_configuration(
            FunctionName=self.function(function.name)
        )
        return found

    # what needs.Place asks

    def keys_of(self, arn: str) -> Set[str]:
        """The KMS key of a table or topic, if it has one of the account's own."""
        if arn not in self._keys:
            self._keys[arn] = {key for key in (self._key_of(arn),) if key}
        return self._keys[arn]

    def _key_of(self, arn: str) -> str | None:
        # ministack's CloudFormation passes over a table's and a topic's encryption: the template says what it is.
        if ":dynamodb:" in arn:
            ours = arn.endswith(f"/{self.output('TableName')}")
            key = self._processed()["Table"]["Properties"].get("SSESpecification", {}).get("KMSMasterKeyId")
            encrypted = key == {"Fn::GetAtt": ["Key", "Arn"]}
        else:
            ours = arn == self.output("TopicArn")
            encrypted = self._processed()["Topic"]["Properties"].get("KmsMasterKeyId") == {"Ref": "Key"}
        return self.output("KeyArn") if ours and encrypted else None

    def _processed(self) -> dict[str, Any]:
        body = self._client("cloudformation").get_template(StackName=self.name)["TemplateBody"]
        resources: dict[str, Any] = (json.loads(body) if isinstance(body, str) else body)["Resources"]
        return resources

    def launch_template(self, name: str) -> Template:
        if name != f"{self.name}-vault":
            raise LookupError(f"no launch template of the stack is called {name}")
        version = self.template_of_vaults()
        data = version["LaunchTemplateData"]
        (root,) = data["BlockDeviceMappings"]
        return Template(version["LaunchTemplateId"], data["ImageId"], root["Ebs"].get("KmsKeyId"))
