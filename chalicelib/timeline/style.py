"""Colours and type. Every colour has at least 4.5 to 1 against its background (a test computes it, by WCAG 2.2's
formula: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio), and tells apart under the common colour blindnesses
together with its shape."""

from typing import Literal

from chalicelib.timeline.picture import Mark

Theme = Literal["light", "dark", "auto"]

# The marks' colours also serve as text: `overdue`, the summary.
LIGHT = {
    "ground": "#ffffff",
    "ink": "#16191f",
    "quiet": "#545b64",
    "rule": "#d5dbdb",
    "stripe": "#f5f7f7",
    "window": "#dbe9f5",
    "edge": "#46637f",
    "counted": "#0f7a43",
    "complete": "#0f7a43",
    "cut": "#a04e00",
    "failed": "#c4262e",
    "abandoned": "#7a3ea8",
    "running": "#0a5fb4",
    "restored": "#08727a",
    "missed": "#545b64",
}
DARK = {
    "ground": "#161d26",
    "ink": "#ebebf0",
    "quiet": "#a4b0bd",
    "rule": "#3a4654",
    "stripe": "#1d2631",
    "window": "#243a52",
    "edge": "#8fb4dc",
    "counted": "#4bc98a",
    "complete": "#4bc98a",
    "cut": "#f2a64b",
    "failed": "#ff8080",
    "abandoned": "#cba3f7",
    "running": "#72b9ff",
    "restored": "#4fc4cc",
    "missed": "#a4b0bd",
}
NAMES = {mark: mark.name.lower() for mark in Mark} | {Mark.LIVE: "running"}

_RULES = """
.nvt{background:var(--ground);color:var(--ink);font:13px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif}
.nvt p{margin:0 0 6px;padding:0 2px}
.nvt .bad{color:var(--failed);font-weight:600}
.nvt .good{color:var(--counted);font-weight:600}
.nvt table,.nvt td,.nvt th{color:var(--ink);font-size:12px}
.nvt table{border-collapse:collapse}
.nvt th,.nvt td{text-align:left;padding:3px 10px 3px 2px;border-bottom:1px solid var(--rule);vertical-align:top}
.nvt td{white-space:nowrap}
.nvt td:last-child{white-space:normal}
.nvt td svg{display:inline-block;vertical-align:-2px}
.nvt svg{display:block}
.nvt svg text{font-size:11px;fill:var(--quiet)}
.nvt svg .name,.nvt svg .age{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.nvt svg .small .name,.nvt svg .small .age{font-size:11px}
.nvt svg .name{fill:var(--ink)}
.nvt svg .vault{fill:var(--ink);font-weight:600}
.nvt svg .late .name,.nvt svg .late .age{fill:var(--failed);font-weight:700}
.nvt svg .rule{stroke:var(--rule)}
.nvt svg .break{stroke-dasharray:1 3}
.nvt svg .stripe{fill:var(--stripe)}
.nvt svg .band{fill:var(--window)}
.nvt svg .awake{fill:var(--edge)}
.nvt svg .edge{stroke:var(--edge)}
.nvt svg .ceiling{stroke:var(--cut);stroke-dasharray:2 2}
.nvt svg .now{stroke:var(--running);stroke-dasharray:1 3}
.nvt svg .hit{fill:transparent}
.nvt svg .run:hover .bar{opacity:1}
.nvt svg .run:hover .mark{stroke-width:3}
.nvt svg .bar{opacity:.55}
"""
_PAGE_RULES = """
body.nvt{margin:0;padding:20px 24px}
.nvt h1{font-size:18px;margin:0 0 4px}
.nvt .across{overflow-x:auto}
.nvt details{margin-top:16px}
.nvt summary{cursor:pointer}
"""


def css(theme: Theme, *, page: bool) -> str:
    """The style sheet; every rule begins with `.nvt`, so that nothing around a widget is touched."""

    def root(colours: dict[str, str], scheme: str) -> str:
        return f".nvt{{color-scheme:{scheme};" + ";".join(f"--{n}:{c}" for n, c in colours.items()) + "}"

    light, dark = root(LIGHT, "light"), root(DARK, "dark")
    chosen = {"light": light, "dark": dark}.get(theme, f"{light}@media(prefers-color-scheme:dark){{{dark}}}")
    marks = (
        "".join(f".nvt svg .{n}{{stroke:var(--{n});fill:var(--{n})}}" for n in sorted(set(NAMES.values())))
        + ".nvt svg .open{fill:var(--ground)}"
    )
    return chosen + _RULES + marks + (_PAGE_RULES if page else "")
