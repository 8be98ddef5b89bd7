"""The operator's command line. It talks to the stack's `operate` Lambda only; docs/operate.md is the contract."""

from chalicelib import VERSION

__version__ = VERSION
