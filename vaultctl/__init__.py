"""The operator's command line. It talks to the stack's `operate` Lambda only; docs/operate.md is the contract."""

__version__ = "0.1.0"
