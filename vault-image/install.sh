#!/bin/sh
# On a vault's first boot, when its program is unpacked: what is missing, services, and no cloud-init from now on.
# May be run again.
set -eu

# What would delay a boot or a power-off, and does nothing for a vault; nightvault-upkeep.timer sees to updates.
IDLE='apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service dpkg-db-backup.timer e2scrub_all.timer
    e2scrub_reap.service fstrim.timer man-db.timer'

main() {
    # shellcheck disable=SC2086 # a list, of which an image may lack some
    systemctl --quiet stop $IDLE || :
    # shellcheck disable=SC2086 # a list
    systemctl --quiet mask $IDLE
    # shellcheck disable=SC2086 # stopped in the middle of its work, one has failed
    systemctl reset-failed $IDLE || :
    missing=''
    need openssh-server /usr/sbin/sshd
    need rsync /usr/bin/rrsync
    need unattended-upgrades /usr/bin/unattended-upgrade
    need xfsprogs /sbin/mkfs.xfs
    if [ -n "$missing" ]; then
        export DEBIAN_FRONTEND=noninteractive
        apt_get update
        # shellcheck disable=SC2086 # a list
        apt_get install --no-install-recommends $missing
    fi
    # Nobody may write there later, and without it every start and every command of a host would compile them anew.
    python3 -m compileall -q /opt/nightvault
    groupadd --force --system nightvault
    mkdir -p /etc/nightvault/keys
    systemctl daemon-reload
    systemctl restart systemd-resolved.service ssh.service
    systemctl enable --now nightvault-agent.service nightvault-upkeep.timer
    # The network's configuration that cloud-init has written stays valid: an instance keeps its interface. So nothing
    # reads user data again: who changes it rebuilds the vault.
    touch /etc/cloud/cloud-init.disabled
}

need() {
    [ -e "$2" ] || missing="$missing $1"
}

apt_get() {
    apt-get -q -y -o Acquire::Retries=5 -o DPkg::Lock::Timeout=600 "$@"
}

main "$@"
