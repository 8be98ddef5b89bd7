"""One boot of one machine: a qemu, its instance metadata, and the gate before its sshd."""

import contextlib
import random
import re
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from tests.localcloud.gateway import Cuts, Gateway
from tests.localcloud.hypervisor import Guest
from tests.localcloud.metadata import MetadataService

from . import qemu
from .image import Image
from .peephole import Peephole
from .qmp import Qmp, QmpError

_BUTTON_SECONDS = 300.0
_BUTTON_AGAIN_SECONDS = 15.0  # a press is lost on a machine that has not come far enough to heed it
_UNPLUG_SECONDS = 30.0


class VirtualMachine:
    """Runs from `__init__` until it is off; then `on_exit` is called.

    `root`: the folder of the instance, whose disk lies in it from its first boot on. `volumes`: image files by
    volume id, in the order in which the machine shall find them. `control_url`: what of the tag nightvault-url the
    machine can only reach by another name.
    """

    def __init__(
        self,
        guest: Guest,
        on_exit: Callable[[], None],
        *,
        root: Path,
        image: Image,
        volumes: Mapping[str, Path],
        control_url: str,
        cuts: Cuts,
        memory_mib: int,
    ) -> None:
        self._guest = guest
        self._on_exit = on_exit
        self._control_url = control_url
        self._off = threading.Event()
        self._exit = contextlib.ExitStack()
        (root / "logs").mkdir(exist_ok=True)
        self._log = self._exit.enter_context((root / "logs" / "console.log").open("ab"))
        # Short: a socket's name holds 107 bytes.
        sockets = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="nightvault-vm-")))
        listener = listen()
        self._address = listener.getsockname()[0]
        metadata = MetadataService(self._answers, user_data=guest.user_data)
        self._exit.callback(metadata.close)
        disk = root / "root.qcow2"
        if not disk.exists():
            qemu.make_root(disk, image)
        command = qemu.command(
            guest.instance_id,
            image=image,
            disk=disk,
            sockets=sockets,
            metadata_port=metadata.port,
            mib=memory_mib,
        )
        for volume_id, file in volumes.items():
            command += qemu.plugged(*qemu.volume(volume_id, file))
        self.volumes = set(volumes)
        built = threading.Event()
        self._process = self._start(command, built)
        try:
            self._qmp = Qmp(sockets / "qmp")
            self._exit.callback(self._qmp.close)
            self.peephole = Peephole(sockets / "shell")
            self._exit.callback(self.peephole.close)
            self.ssh_port = self._forwarded_port()
            self.gateway = Gateway(
                listener, lambda source: guest.admits(source, qemu.SSH), cuts, inner_port=self.ssh_port
            )
            self._exit.callback(self.gateway.close)
        except BaseException:
            listener.close()
            self._process.kill()
            raise
        finally:
            built.set()

    @property
    def pid(self) -> int:
        """Of its qemu."""
        return self._process.pid

    @property
    def on(self) -> bool:
        return not self._off.is_set()

    def power_button(self) -> None:
        """Clean shutdown; the plug is pulled if that takes longer than five minutes."""
        deadline = time.monotonic() + _BUTTON_SECONDS
        while self.on and time.monotonic() < deadline:
            with contextlib.suppress(QmpError):
                self._qmp.execute("system_powerdown")
            self._off.wait(_BUTTON_AGAIN_SECONDS)
        self.pull_plug()

    def pull_plug(self) -> None:
        self._process.kill()
        self._off.wait()

    def attach(self, volume_id: str, file: Path) -> None:
        """Plugs the disk into the running machine."""
        block, device = qemu.volume(volume_id, file)
        with self._unless_off():
            self._qmp.execute("blockdev-add", **block)
            self._qmp.execute("device_add", **device)
            self.volumes.add(volume_id)

    def detach(self, volume_id: str) -> None:
        """Unplugs it, when the machine lets go of it. TimeoutError if it does not."""
        disk = qemu.disk_id(volume_id)
        with self._unless_off():
            self._qmp.execute("device_del", id=disk)
            if not self._qmp.await_event("DEVICE_DELETED", disk, _UNPLUG_SECONDS):
                raise TimeoutError(f"{self._guest.instance_id} does not let go of {volume_id}")
            self._qmp.execute("blockdev-del", **{"node-name": volume_id})
            self.volumes.discard(volume_id)

    def resize(self, volume_id: str, size_bytes: int) -> None:
        with self._unless_off():
            self._qmp.execute("block_resize", **{"node-name": volume_id, "size": size_bytes})

    def _start(self, command: list[str], built: threading.Event) -> "subprocess.Popen[bytes]":
        """Starts qemu in a thread that stays with it: for its parent's end is that thread's, as the kernel sees it.

        So a qemu never outlives this process, however that ends (prctl(2), PR_SET_PDEATHSIG).
        """
        began = time.monotonic()
        started: list[subprocess.Popen[bytes] | OSError] = []
        ready = threading.Event()

        def live() -> None:
            try:
                process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                started.append(process)
            except OSError as error:
                started.append(error)
                return
            finally:
                ready.set()
            if process.stdout is not None:
                self._keep_console(process.stdout, began)
            process.wait()
            built.wait()
            self._exit.close()
            self._off.set()
            self._on_exit()

        self._log.write(f"--- {shlex.join(command)}\n".encode())
        threading.Thread(target=live, name=f"machine {self._guest.instance_id}", daemon=True).start()
        ready.wait()
        if isinstance(started[0], OSError):
            raise started[0]
        return started[0]

    def _keep_console(self, output: IO[bytes], began: float) -> None:
        """Each line of the first serial port, with the seconds since power-on."""
        with output:
            for line in output:
                self._log.write(f"{time.monotonic() - began:8.3f} ".encode() + line)
                self._log.flush()

    def _forwarded_port(self) -> int:
        """The port on 127.0.0.1 that qemu chose for the machine's sshd."""
        text = self._qmp.execute("human-monitor-command", **{"command-line": "info usernet"})
        found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", text)
        if found is None:
            raise AssertionError(f"qemu forwards no port: {text}")
        return int(found[1])

    def _answers(self) -> Mapping[str, str]:
        """The instance's metadata, with what this network makes of it."""
        found = dict(self._guest.metadata())
        mac = qemu.mac(self._guest.instance_id)
        nic = {
            "device-number": "0",
            "mac": mac,
            "local-ipv4s": qemu.ADDRESS,
            "public-ipv4s": self._address,
            "subnet-ipv4-cidr-block": "172.31.16.0/20",
            "vpc-ipv4-cidr-block": "172.31.0.0/16",
        }
        found |= {f"meta-data/network/interfaces/macs/{mac}/{name}": value for name, value in nic.items()}
        found |= {"meta-data/mac": mac, "meta-data/local-ipv4": qemu.ADDRESS, "meta-data/public-ipv4": self._address}
        tag = "meta-data/tags/instance/nightvault-url"
        if self._control_url and found.get(tag) == self._control_url:
            found[tag] = self._control_url.replace("127.0.0.1", qemu.ROUTER)
        return found

    @contextlib.contextmanager
    def _unless_off(self) -> Iterator[None]:
        """What is asked of a machine that goes off meanwhile is done."""
        try:
            yield
        except QmpError:
            if not self._off.wait(1):
                raise


def listen() -> socket.socket:
    """Port 22, as on EC2, on an address of 127.0.0.0/8 that no other machine has."""
    chooser = random.SystemRandom()
    for _ in range(100):
        listener = socket.socket()
        address = f"127.{chooser.randrange(1, 255)}.{chooser.randrange(256)}.{chooser.randrange(1, 255)}"
        try:
            listener.bind((address, qemu.SSH))
        except PermissionError as error:
            listener.close()
            raise PermissionError("machines have their sshd on port 22 of 127.x.y.z: that needs root") from error
        except OSError:
            listener.close()
        else:
            listener.listen(256)
            return listener
    raise OSError("port 22 is taken on all of 127.0.0.0/8: an sshd listens on 0.0.0.0; give it a ListenAddress")
