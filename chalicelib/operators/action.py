"""What every action is: a request as a struct, tagged by its name, that knows how to answer itself."""

from typing import TYPE_CHECKING

from msgspec import Struct

from chalicelib.http import Wire

if TYPE_CHECKING:
    from chalicelib.wiring import Wiring


class Action(Wire, tag_field="action"):
    """Subclasses carry the action's name as their `tag`, and its fields."""

    def answer(self, wired: "Wiring") -> Struct:
        """Do it. Raises the errors of errors.py; a refused action has changed nothing."""
        raise NotImplementedError
