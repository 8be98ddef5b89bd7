"""The words of nightvault as frozen values: vault, window, run, lease, restore point.

Everything here is data. Nothing knows the clock, AWS, or HTTP. Instants are aware and in UTC. Whoever is outside of
this folder imports from it, and not from its files, so that what lies where is this folder's own affair.
"""

from chalicelib.model.hosts import DRILL_OVERDUE, Code, Drill, Host, LastBackup
from chalicelib.model.points import Copy, Marks, RestorePoint, Retention, RetentionLook
from chalicelib.model.policy import Policy
from chalicelib.model.runs import Change, Checked, Progress, Restoring, Run, Stats
from chalicelib.model.slots import (
    FORMER_KEYS,
    GROWTH,
    MAX_HOSTS,
    MAX_SIZE_GIB,
    MAX_VOLUMES,
    PointVolume,
    Slot,
    max_size,
)
from chalicelib.model.vaults import Agent, Launch, Mount, PointMount, Vault
from chalicelib.model.windows import Ceiling, Spent, Window
from chalicelib.model.words import DrillState, InstanceState, Kind, Outcome, Phase, PointState, Resting, Source

__all__ = [
    "DRILL_OVERDUE",
    "FORMER_KEYS",
    "GROWTH",
    "MAX_HOSTS",
    "MAX_SIZE_GIB",
    "MAX_VOLUMES",
    "Agent",
    "Ceiling",
    "Change",
    "Checked",
    "Code",
    "Copy",
    "Drill",
    "DrillState",
    "Host",
    "InstanceState",
    "Kind",
    "LastBackup",
    "Launch",
    "Marks",
    "Mount",
    "Outcome",
    "Phase",
    "PointMount",
    "PointState",
    "PointVolume",
    "Policy",
    "Progress",
    "Resting",
    "RestorePoint",
    "Restoring",
    "Retention",
    "RetentionLook",
    "Run",
    "Slot",
    "Source",
    "Spent",
    "Stats",
    "Vault",
    "Window",
    "max_size",
]
