"""Where the project is."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
VAULT_IMAGE = REPOSITORY / "vault-image"
