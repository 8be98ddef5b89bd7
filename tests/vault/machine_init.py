"""The first process of a test's private machine: its own /etc, /mnt, /run, accounts, mounts and process ids.

Does what it is told on standard input, a line of JSON each, and answers a line. When the input ends, because
the test ended or was killed, it exits, and the kernel ends every process, mount and loop device with it.
"""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LOOP_SET_CAPACITY, _LOOP_CLR_FD = 0x4C82, 0x4C0A, 0x4C07, 0x4C01
_LO_FLAGS_AUTOCLEAR = 4
_HELD: dict[str, int] = {}
_STARTED: dict[str, subprocess.Popen[bytes]] = {}


def prepare() -> None:
    """Cover what tests write to, and let services follow the machine's mounts."""
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    for place in ("/srv", "/mnt", "/run"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", place], check=True)
    for folder in ("/srv/etc.up", "/srv/etc.work", "/run/sshd", "/srv/dev"):
        Path(folder).mkdir(mode=0o755)
    layers = "lowerdir=/etc,upperdir=/srv/etc.up,workdir=/srv/etc.work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, "/etc"], check=True)


def attach(volume_id: str, image: str) -> str:
    """A loop device over `image`, gone as soon as nobody holds it, and its link in /srv/dev."""
    while True:
        control = os.open("/dev/loop-control", os.O_RDWR)
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        os.close(control)
        device = os.open(f"/dev/loop{number}", os.O_RDWR)
        backing = os.open(image, os.O_RDWR)
        info = struct.pack("=5Q4I160x2Q", 0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, 0, 0)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, struct.pack("=2I", backing, 512) + info + bytes(64))
        except OSError:  # another test was quicker
            os.close(device)
            continue
        finally:
            os.close(backing)
        _HELD[volume_id] = device
        Path(f"/srv/dev/{volume_id}").symlink_to(f"/dev/loop{number}")
        return f"/dev/loop{number}"


def answer(order: dict[str, Any]) -> Any:
    """Do one thing."""
    match order:
        case {"do": "attach", "volume_id": volume_id, "image": image}:
            return attach(volume_id, image)
        case {"do": "detach", "volume_id": volume_id}:
            Path(f"/srv/dev/{volume_id}").unlink()
            os.close(_HELD.pop(volume_id))
        case {"do": "grow", "volume_id": volume_id}:
            fcntl.ioctl(_HELD[volume_id], _LOOP_SET_CAPACITY)
        case {"do": "run", "argv": argv, "input": text}:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, input=text, timeout=50)
            return [done.returncode, done.stdout, done.stderr]
        case {"do": "start", "name": name, "argv": argv, "log": log}:
            with Path(log).open("ab") as out:
                _STARTED[name] = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
            return _STARTED[name].pid
        case {"do": "stop", "name": name, "signal": number, "seconds": seconds}:
            process = _STARTED[name]
            process.send_signal(number)
            return process.wait(seconds)
        case {"do": "wait", "name": name, "seconds": seconds}:
            return _STARTED[name].wait(seconds)
        case _:
            raise ValueError(order)
    return None


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test, which then closes our input
    prepare()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        try:
            told: Any = {"ok": answer(json.loads(line))}
        except Exception as error:
            told = {"error": repr(error)}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
