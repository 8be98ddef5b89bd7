"""A change of a host's record that goes with a change of its vault."""

from msgspec.structs import replace

from chalicelib.errors import UnknownHost
from chalicelib.model import Host
from chalicelib.ports import Store


class Amendment:
    """Both are saved, or neither."""

    def __init__(self, name: str, **changes: object) -> None:
        self._name = name
        self._changes = changes

    def of(self, store: Store) -> Host:
        """The record as it shall be. Raises UnknownHost."""
        host = store.host(self._name)
        if host is None:
            raise UnknownHost(self._name)
        return replace(host, **self._changes)
