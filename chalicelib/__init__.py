"""nightvault's control plane: what the Lambdas of app.py do. Imports point down: see docs/structure.md."""
