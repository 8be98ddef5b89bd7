#!/bin/sh
# On a vault's first boot, when its program is unpacked: what is missing, accounts' group, services. May run again.
set -eu

main() {
    missing=''
    need openssh-server /usr/sbin/sshd
    need rsync /usr/bin/rrsync
    need xfsprogs /sbin/mkfs.xfs
    if [ -n "$missing" ]; then
        export DEBIAN_FRONTEND=noninteractive
        apt_get update
        # shellcheck disable=SC2086 # a list
        apt_get install --no-install-recommends $missing
    fi
    groupadd --force --system nightvault
    mkdir -p /etc/nightvault/keys
    systemctl daemon-reload
    systemctl restart ssh.service
    systemctl enable --now nightvault-agent.service
}

need() {
    [ -e "$2" ] || missing="$missing $1"
}

apt_get() {
    apt-get -q -y -o Acquire::Retries=5 -o DPkg::Lock::Timeout=600 "$@"
}

main "$@"
