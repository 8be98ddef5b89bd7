"""Vaults' machines, and who may reach them."""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from chalicelib.model import InstanceState, Phase, Vault
from chalicelib.operators.checks.findings import Facts, Finding, StrayIngress, StrayMachine

SSH_PORT = 22


def machines(facts: Facts) -> Iterator[Finding]:
    known = {vault.instance_id: vault for vault in facts.vaults}
    launching = {vault.vault_id for vault in facts.vaults if vault.launch}
    for machine in facts.estate.machines:
        vault = known.get(machine.instance_id)
        if not facts.settled(machine.launched_at):
            continue
        if vault is None and machine.vault_id not in launching:
            yield Finding(
                level="wrong",
                what=f"instance {machine.instance_id} ({machine.state}) carries our tag, and no vault knows it",
                remedy="`vaultctl doctor --fix` terminates it; it holds no data",
                resource=machine.instance_id,
                mend=StrayMachine(instance_id=machine.instance_id),
            )
        elif vault and vault.phase is Phase.ASLEEP and machine.state == InstanceState.RUNNING:
            yield Finding(
                level="wrong",
                what=f"{vault.vault_id} is asleep, and its instance {machine.instance_id} runs and costs",
                remedy="the sweep stops it within a quarter of an hour; if it does not, stop it in the EC2 console",
                resource=machine.instance_id,
            )


def templates(facts: Facts) -> Iterator[Finding]:
    names = {vault.instance_id: vault.vault_id for vault in facts.vaults if vault.instance_id}
    for machine in facts.estate.machines:
        old = machine.template_version
        if machine.instance_id in names and old and facts.newest_template and old < facts.newest_template:
            name = names[machine.instance_id]
            yield Finding(
                level="warning",
                what=f"{name} was launched from version {old} of its template; the newest is {facts.newest_template}",
                remedy=f"`vaultctl rebuild-vault {name}` while it is asleep; its volumes stay",
                resource=machine.instance_id,
            )


def live_addresses(vault: Vault | None) -> frozenset[str]:
    """Whom a vault's security group should let in."""
    window = vault.window if vault else None
    return frozenset(run.source_address for run in window.live_runs if run.source_address) if window else frozenset()


def ingress(facts: Facts) -> Iterator[Finding]:
    by_group = {vault.security_group_id: vault for vault in facts.vaults if vault.security_group_id}
    for group in facts.estate.groups:
        vault = by_group.get(group.group_id)
        wanted = live_addresses(vault)
        for stray in _rules(group.group_id, vault.vault_id if vault else "", group.ingress):
            if stray.address is None or stray.address not in wanted:
                who = stray.address or "more than one address, or another port"
                yield Finding(
                    level="wrong",
                    what=f"security group {group.group_id} lets in {who}, whom no live run needs",
                    remedy="`vaultctl doctor --fix` closes it; so does the next sweep of a vault that is busy",
                    resource=group.group_id,
                    mend=stray,
                )


def _rules(group_id: str, vault_id: str, permissions: tuple[dict[str, Any], ...]) -> Iterator[StrayIngress]:
    """Every single rule of a group, as a permission that names it alone."""
    for permission in permissions:
        ours = (permission.get("IpProtocol"), permission.get("FromPort"), permission.get("ToPort")) == (
            "tcp",
            SSH_PORT,
            SSH_PORT,
        )
        plain: dict[str, Any] = {
            key: permission[key] for key in ("IpProtocol", "FromPort", "ToPort") if key in permission
        }
        for kind, key in (
            ("IpRanges", "CidrIp"),
            ("Ipv6Ranges", "CidrIpv6"),
            ("PrefixListIds", ""),
            ("UserIdGroupPairs", ""),
        ):
            for source in permission.get(kind, []):
                network = ip_network(source[key], strict=False) if key else None
                single = network is not None and network.num_addresses == 1
                yield StrayIngress(
                    group_id=group_id,
                    vault_id=vault_id,
                    address=str(network.network_address) if ours and network and single else None,
                    permission={**plain, kind: [_without_description(source)]},
                )


def _without_description(source: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key != "Description"}


def groups(facts: Facts) -> Iterator[Finding]:
    named = {vault.security_group_id for vault in facts.vaults}
    for group in facts.estate.groups:
        if group.group_id not in named:
            yield Finding(
                level="warning",
                what=f"security group {group.group_id} carries our tag, and no vault names it",
                remedy=f"aws ec2 delete-security-group --group-id {group.group_id} (EC2 refuses while it is in use)",
                resource=group.group_id,
            )
