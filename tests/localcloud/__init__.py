"""The cloud on one machine: `from tests.localcloud.cloud import LocalCloud`. README.md says how it works."""
