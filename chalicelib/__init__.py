"""nightvault's control plane: what the Lambdas of app.py do. Imports point down: see docs/structure.md."""

VERSION = "0.2.0"  # pyproject.toml says the same; a test holds them together
