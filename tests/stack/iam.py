"""IAM's decision about one call: an explicit Deny wins, else an Allow is needed.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
Of a role's own policies only; boundaries, session and resource policies there are none of here. What is not known (an
operator, an element) raises, so that a policy that this can't judge never passes.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

Json = Mapping[str, Any]
Context = Mapping[str, str | Sequence[str]]
_ELEMENTS = {"Sid", "Effect", "Action", "Resource", "Condition"}


@dataclass(frozen=True)
class Need:
    """One decision that a call needs: `action` on `resource` (an ARN, or "*" where AWS has none), in `context`."""

    action: str
    resource: str
    context: Context


@dataclass(frozen=True)
class Grant:
    """What of a policy allowed it: a statement's Sid, one action and one resource of it. The unit of the proof."""

    sid: str
    action: str
    resource: str


def grants(policies: Iterable[Json]) -> Iterator[Grant]:
    """Everything that the policies allow, each pair of action and resource for itself."""
    for statement in _statements(policies):
        if statement["Effect"] == "Allow":
            for action in _listed(statement["Action"]):
                for resource in _listed(statement["Resource"]):
                    yield Grant(statement.get("Sid", ""), action, resource)


def decide(need: Need, policies: Iterable[Json]) -> tuple[Grant, ...]:
    """What allows it; empty: denied."""
    allowed: list[Grant] = []
    for statement in _statements(policies):
        if not _conditions_hold(statement.get("Condition", {}), need.context):
            continue
        found = [
            Grant(statement.get("Sid", ""), action, resource)
            for action in _listed(statement["Action"])
            if _like(action.lower(), need.action.lower())
            for resource in _listed(statement["Resource"])
            if _like(resource, need.resource)
        ]
        if found and statement["Effect"] == "Deny":
            return ()
        allowed += found
    return tuple(allowed)


def _statements(policies: Iterable[Json]) -> Iterator[dict[str, Any]]:
    for policy in policies:
        listed = policy["Statement"]
        for statement in [listed] if isinstance(listed, dict) else listed:
            if unknown := set(statement) - _ELEMENTS:
                raise NotImplementedError(f"elements of a statement that are not judged here: {sorted(unknown)}")
            yield statement


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


@cache
def _pattern(text: str) -> re.Pattern[str]:
    parts = (".*" if each == "*" else "." if each == "?" else re.escape(each) for each in text)
    return re.compile("".join(parts), re.DOTALL)


def _like(pattern: str, value: str) -> bool:
    return _pattern(pattern).fullmatch(value) is not None


def _equals(wanted: str, value: str) -> bool:
    return wanted == value


def _same_truth(wanted: str, value: str) -> bool:
    return wanted.lower() == value.lower()


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": _equals,
    "StringLike": _like,
    "ArnEquals": _like,
    "ArnLike": _like,
    "Bool": _same_truth,
}


def _conditions_hold(conditions: Json, context: Context) -> bool:
    """All of them: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html"""
    lowered = {key.lower(): value for key, value in context.items()}  # keys have no case, values do
    return all(
        _holds(operator, lowered.get(key.lower()), _listed(wanted))
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, found: str | Sequence[str] | None, wanted: Sequence[str]) -> bool:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html"""
    if operator == "Null":
        return (found is None) == (wanted[0].lower() == "true")
    every, _, bare = operator.rpartition(":")
    if bare.endswith("IfExists"):
        if found is None:
            return True
        bare = bare.removesuffix("IfExists")
    negated = bare.startswith("StringNot")
    if negated:
        bare = bare.replace("Not", "", 1)
    if bare not in _OPERATORS or every not in ("", "ForAllValues", "ForAnyValue"):
        raise NotImplementedError(f"a condition that is not judged here: {operator}")
    compare = _OPERATORS[bare]

    def matches(value: str) -> bool:
        return any(compare(each, value) for each in wanted) != negated

    if found is None:  # not there: only what must not match does, and what must hold for all of none
        return negated if every == "" else every == "ForAllValues"
    values = _listed(found)
    return any(map(matches, values)) if every == "ForAnyValue" else all(map(matches, values))
