"""One CloudFormation stack: what state it is in, changed by change sets, followed by its events.

Nothing here remembers anything: whatever was interrupted, the next run finds in CloudFormation and goes on from there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from deploy.account import Aws
from deploy.console import Screen, Stopped

LOOK_SECONDS = 2.0
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
_GONE = {"DELETE_COMPLETE"}
# Nothing was ever deployed, or it was rolled back to nothing: only deleting leads on from here.
_STILLBORN = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}
_GOOD = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"}
_CAPABILITIES: Any = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]  # it makes roles, and is a SAM template
# What holds data: a change that would put a new one in its place is refused.
_HOLDS_DATA = {"Table", "Key"}


@dataclass(frozen=True)
class Change:
    """One resource that a change set would touch."""

    action: str  # Add, Modify, Remove
    name: str
    kind: str
    replacement: bool


class Stack:
    """`name`d stack of this account and region."""

    def __init__(self, aws: Aws, name: str, screen: Screen) -> None:
        self._cf = aws.cloudformation
        self.name = name
        self._screen = screen

    def describe(self) -> dict[str, Any] | None:
        """CloudFormation's description, or None when there is no such stack."""
        try:
            [found] = self._cf.describe_stacks(StackName=self.name)["Stacks"]
        except ClientError as error:
            if "does not exist" in error.response["Error"].get("Message", ""):
                return None
            raise
        return None if found["StackStatus"] in _GONE else dict(found)

    def outputs(self) -> dict[str, str]:
        found = self.describe() or {}
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}

    def parameters(self) -> dict[str, str]:
        """What it was deployed with; empty before the first time."""
        found = self.describe() or {}
        if found.get("StackStatus") in {"REVIEW_IN_PROGRESS", *_STILLBORN}:
            return {}
        return {p["ParameterKey"]: p.get("ParameterValue", "") for p in found.get("Parameters", [])}

    def settle(self) -> bool:
        """Bring it to where a change set can be made. True if it is deployed already. Raises Stopped."""
        found = self.describe()
        if found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS":  # a change set was made and never executed
            return False
        status = found["StackStatus"]
        if status.endswith("_IN_PROGRESS"):
            self._screen.say(f"CloudFormation is at work on {self.name} already ({status}); following it")
            status = self._follow(found["StackId"], self._last_event())
            if status in _GONE:
                return False
        if status in _STILLBORN:
            self._screen.say(f"{self.name} is {status}: an earlier deployment came to nothing. Clearing it away")
            self.delete()
            return False
        if status == "UPDATE_ROLLBACK_FAILED":
            self._screen.say(f"{self.name} could not be rolled back; trying that once more")
            since = self._last_event()
            self._cf.continue_update_rollback(StackName=self.name)
            status = self._follow(found["StackId"], since)
            if status == "UPDATE_ROLLBACK_FAILED":
                raise Stopped(f"{self.name} is {status}", "see its events above, or in CloudFormation's console")
        return True

    # --- changing -----------------------------------------------------------------------------------------

    def propose(
        self, name: str, template_url: str, parameters: Mapping[str, str | None], *, exists: bool
    ) -> list[Change]:
        """Make the change set `name`; a parameter of None keeps its value. Empty: there is nothing to change.

        Raises Stopped when CloudFormation refuses the template.
        """
        self._discard(name)
        try:
            self._create(name, template_url, parameters, kind="UPDATE" if exists else "CREATE")
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise _refused(error.response["Error"].get("Message", "")) from error
        while True:
            made = self._cf.describe_change_set(StackName=self.name, ChangeSetName=name)
            if made["Status"] == "CREATE_COMPLETE":
                return [change for page in self._pages(name) for change in page]
            if made["Status"] == "FAILED":
                reason = made.get("StatusReason", "")
                self._discard(name)
                # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-changesets-view.html
                if "didn't contain changes" in reason or "No updates are to be performed" in reason:
                    return []
                raise _refused(reason)
            self._screen.pause(LOOK_SECONDS)

    def _create(self, name: str, template_url: str, parameters: Mapping[str, str | None], *, kind: Any) -> None:
        self._cf.create_change_set(
            StackName=self.name,
            ChangeSetName=name,
            ChangeSetType=kind,
            TemplateURL=template_url,
            Parameters=[
                {"ParameterKey": key, "UsePreviousValue": True}
                if value is None
                else {"ParameterKey": key, "ParameterValue": value}
                for key, value in parameters.items()
            ],
            Capabilities=_CAPABILITIES,
            Tags=[{"Key": "nightvault:stack", "Value": self.name}],
        )

    def execute(self, name: str) -> None:
        """Execute the change set `name`, and follow it to its end. Raises Stopped when it was rolled back."""
        since = self._last_event()
        found = self.describe()
        # Else a first deployment that fails would leave an empty table and a key behind, each time.
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_ExecuteChangeSet.html
        self._cf.execute_change_set(StackName=self.name, ChangeSetName=name, RetainExceptOnCreate=True)
        status = self._follow(found["StackId"] if found else self.name, since)
        if status not in _GOOD:
            raise Stopped(
                f"the deployment failed, and {self.name} is {status}",
                "mend what is red above, then `make deploy` again; what ran before runs on",
            )

    def delete(self) -> None:
        """Delete it, and follow that to its end. Nothing, if it is not there. Raises Stopped."""
        found = self.describe()
        if found is None:
            return
        since = self._last_event()
        if found["StackStatus"] != "DELETE_IN_PROGRESS":
            self._cf.delete_stack(StackName=self.name)
        status = self._follow(found["StackId"], since)
        if status not in _GONE:
            raise Stopped(f"{self.name} is {status}", "mend what is red above, and say it again")

    def _discard(self, name: str) -> None:
        try:
            self._cf.delete_change_set(StackName=self.name, ChangeSetName=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ChangeSetNotFound", "ValidationError"):
                raise

    def _pages(self, name: str) -> Iterable[list[Change]]:
        for page in self._cf.get_paginator("describe_change_set").paginate(StackName=self.name, ChangeSetName=name):
            yield [_change(change["ResourceChange"]) for change in page["Changes"] if "ResourceChange" in change]

    # --- following ----------------------------------------------------------------------------------------

    def _last_event(self) -> str:
        try:
            events = self._cf.describe_stack_events(StackName=self.name)["StackEvents"]
        except ClientError as error:
            if "does not exist" in error.response["Error"].get("Message", ""):
                return ""
            raise
        return events[0]["EventId"] if events else ""

    def _follow(self, stack_id: str, since: str) -> str:
        """Show events as they come, until the stack is at rest. Gives its status.

        By its id, since a deleted stack is found by no other name.
        """
        while True:
            [found] = self._cf.describe_stacks(StackName=stack_id)["Stacks"]
            for event in self._events(stack_id, since):
                self._screen.event(
                    event.get("LogicalResourceId", ""),
                    event.get("ResourceType", ""),
                    event.get("ResourceStatus", ""),
                    event.get("ResourceStatusReason", ""),
                )
                since = event["EventId"]
            if not found["StackStatus"].endswith("_IN_PROGRESS"):
                return found["StackStatus"]
            self._screen.pause(LOOK_SECONDS)

    def _events(self, stack_id: str, since: str) -> list[Any]:
        """Those after `since`, oldest first."""
        new: list[Any] = []
        for page in self._cf.get_paginator("describe_stack_events").paginate(StackName=stack_id):
            for event in page["StackEvents"]:
                if event["EventId"] == since:
                    return new[::-1]
                new.append(event)
        return new[::-1]


def _refused(reason: str) -> Stopped:
    return Stopped(f"CloudFormation does not take the template: {reason}", "nothing was changed")


def _change(change: Any) -> Change:
    return Change(
        change["Action"],
        change["LogicalResourceId"],
        change["ResourceType"],
        change.get("Replacement") in ("True", "Conditional") or change["Action"] == "Remove",
    )


def harmful(changes: Iterable[Change]) -> list[Change]:
    """Those that would part the stack from its data."""
    return [change for change in changes if change.name in _HOLDS_DATA and change.replacement]
