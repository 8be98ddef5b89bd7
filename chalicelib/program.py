"""The vault's program, which a new machine fetches on its first boot: vault-image/ as one archive."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from chalicelib.errors import UnknownProgram


@dataclass(frozen=True)
class Program:
    """The one that this deployment brought. Public: it is this repository's own code, and holds no secret."""

    path: Path

    def document(self, sha256: str) -> dict[str, str]:
        """The program in base64, if it is the one asked for. Raises UnknownProgram.

        A machine that was launched while the stack was being updated may ask for one that comes in a moment, and
        asks again; or for one that has gone, and is replaced by the next attempt to wake its vault.
        """
        try:
            program = self.path.read_bytes()
        except FileNotFoundError:
            program = b""
        if not program or hashlib.sha256(program).hexdigest() != sha256:
            raise UnknownProgram("this deployment has no such program; ask again, or rebuild the vault")
        return {"program": base64.b64encode(program).decode("ascii")}
