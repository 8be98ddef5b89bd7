"""The last nights as a picture: pure functions from what `operate` answers to HTML, and to lines for a terminal.

    html(windows, hosts, now)    a page of its own, or (`embed=True`) the inside of a CloudWatch custom widget
    overdue(windows, hosts, now) the hosts that are overdue as a table, for a widget
    text(windows, hosts, now)    plain lines
    lines(windows, hosts, now)   the same as [(text, style)] with Rich's style names: `Text.assemble(*line)`

`windows` are WINDOWs and `hosts` HOSTs of docs/operate.md, as dicts or as structs with the same fields. Fields
that are not drawn may be missing. Raises msgspec.ValidationError that names a field of the wrong type.
"""

from chalicelib.timeline.overdue import overdue
from chalicelib.timeline.page import html
from chalicelib.timeline.plain import lines, text
from chalicelib.timeline.style import Theme

__all__ = ["Theme", "html", "lines", "overdue", "text"]
