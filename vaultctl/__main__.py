"""`python -m vaultctl`, and the console script."""

import sys

from vaultctl.main import main


def script() -> None:
    """What `vaultctl` runs."""
    sys.exit(main())


if __name__ == "__main__":
    script()
