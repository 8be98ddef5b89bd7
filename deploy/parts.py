"""What of the template is computed. Each part is a function that gives a piece of it, to be merged over what Chalice
makes and `.chalice/resources.json` says.

To add a part (a dashboard, alarms): write a module with such a function, and name it in PARTS. A part may refer to
anything in `.chalice/resources.json` (Topic, Table, Key, RestAPI, parameters) and to the functions by their logical
ids, `Function.resource`. What can be written by hand belongs into `.chalice/resources.json`. Two parts that set the
same thing are an error.
"""

import base64
import importlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deploy.alarms import alarms
from deploy.copies import copies
from deploy.dashboard import dashboard
from deploy.policies import FUNCTIONS

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]

# chalicelib/settings.py reads these.
_EVERY_FUNCTION: Json = {
    "NIGHTVAULT_STACK": {"Ref": "AWS::StackName"},
    "NIGHTVAULT_TABLE": {"Ref": "Table"},
    "NIGHTVAULT_LAUNCH_TEMPLATE": {"Fn::Sub": "${AWS::StackName}-vault"},
    "NIGHTVAULT_SUBNET": {"Ref": "Subnet"},
    "NIGHTVAULT_TOPIC_ARN": {"Ref": "Topic"},
    "NIGHTVAULT_KMS_KEY": {"Fn::GetAtt": ["Key", "Arn"]},
    # A name and no Ref: the parameter is made from the API, and the API from the functions.
    "NIGHTVAULT_URL_PARAMETER": {"Fn::Sub": "/${AWS::StackName}/url"},
    "NIGHTVAULT_WINDOW_HOURS": {"Ref": "WindowHours"},
    "NIGHTVAULT_RESTORE_HOURS": {"Ref": "RestoreHours"},
    "NIGHTVAULT_DRILL_HOURS": {"Ref": "DrillHours"},
    "NIGHTVAULT_LINGER_SECONDS": {"Ref": "LingerSeconds"},
    "NIGHTVAULT_KEEP_DAILY": {"Ref": "KeepDaily"},
    "NIGHTVAULT_KEEP_WEEKLY": {"Ref": "KeepWeekly"},
    "NIGHTVAULT_KEEP_MONTHLY": {"Ref": "KeepMonthly"},
    "NIGHTVAULT_COPY_REGION": {"Ref": "CopyRegion"},
    "NIGHTVAULT_COPY_KMS_KEY": {"Ref": "CopyKmsKey"},
    "NIGHTVAULT_COPIES_KEPT": {"Ref": "CopiesKept"},
}
_SOME_FUNCTIONS: dict[str, Json] = {
    "timeline_widget": {
        "NIGHTVAULT_INSTANCE_TYPE": {"Ref": "InstanceType"},
        "NIGHTVAULT_ROOT_GIB": {"Ref": "RootGib"},
    },
    # It is no part of the API, so it may be told where that is.
    "operate": {"NIGHTVAULT_URL": {"Fn::Sub": "https://${RestAPI}.execute-api.${AWS::Region}.${AWS::URLSuffix}/api"}},
}
# What checkov asks of every function and log group, and why it does not get it.
_FUNCTION_SKIPS = {
    "CKV_AWS_115": "new accounts have 10 in all and may reserve none; API Gateway's throttling limits us",
    "CKV_AWS_116": "what a lost event or failed sweep left undone the next sweep does; an alarm counts failures",
    "CKV_AWS_117": "they call public AWS APIs only; a VPC would need a NAT gateway, which costs more than all else",
    "CKV_AWS_173": "the variables are names of resources and durations, no secrets",
}
_LOG_GROUP_SKIPS = {
    "CKV_AWS_158": "encrypted with CloudWatch's key; they hold names, numbers and addresses, never a token",
}


def skipping(skips: dict[str, str]) -> Json:
    """checkov's own notation: https://www.checkov.io/2.Basics/Suppressing%20and%20Skipping%20Policies.html"""
    return {"checkov": {"skip": [{"id": check, "comment": reason} for check, reason in skips.items()]}}


def functions() -> Json:
    """Names, variables, and a log group each: made first, so that none is ever without its retention.

    Chalice's own `log_retention_in_days` names a function that its template does not have (aws/chalice#2079).
    """
    resources: Json = {}
    for function in FUNCTIONS:
        name = {"Fn::Sub": f"${{AWS::StackName}}-{function.suffix}"}
        resources[function.resource] = {
            "DependsOn": [function.log_group],
            "Metadata": skipping(_FUNCTION_SKIPS),
            "Properties": {
                "FunctionName": name,
                "Environment": {"Variables": _EVERY_FUNCTION | _SOME_FUNCTIONS.get(function.name, {})},
            },
        }
        resources[function.log_group] = {
            "Type": "AWS::Logs::LogGroup",
            "Metadata": skipping(_LOG_GROUP_SKIPS),
            "Properties": {
                "LogGroupName": {"Fn::Sub": f"/aws/lambda/${{AWS::StackName}}-{function.suffix}"},
                "RetentionInDays": {"Ref": "LogRetentionDays"},
            },
        }
    return {"Resources": resources}


def vault_image() -> Any:
    """vault-image/user_data.py: its folder is no package, for it goes to a machine as it is."""
    folder = str(ROOT / "vault-image")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("user_data")
    finally:
        sys.path.remove(folder)


def vault() -> Json:
    """The vault's user data, which names its program by digest: the same bytes for the same vault-image/."""
    data = base64.b64encode(vault_image().user_data()).decode("ascii")
    return {"Resources": {"VaultTemplate": {"Properties": {"LaunchTemplateData": {"UserData": data}}}}}


PARTS: tuple[Callable[[], Json], ...] = (functions, vault, alarms, dashboard, copies)


def merged() -> Json:
    """`.chalice/resources.json` and all parts, for `chalice package --merge-template`. Raises PartsDisagree."""
    whole: Json = json.loads((ROOT / ".chalice" / "resources.json").read_text())
    for part in PARTS:
        _merge(whole, part(), ())
    return whole


class PartsDisagree(Exception):
    """Two parts set the same thing; the message says where."""


def _merge(into: Json, piece: Json, where: Iterable[str]) -> None:
    for key, value in piece.items():
        here = (*where, key)
        if key not in into:
            into[key] = value
        elif isinstance(value, dict) and isinstance(into[key], dict):
            _merge(into[key], value, here)
        elif value != into[key]:
            raise PartsDisagree(f"{'.'.join(here)} is set twice; see PARTS in deploy/parts.py")
