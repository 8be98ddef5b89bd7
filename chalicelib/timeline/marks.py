"""The shape of each mark, 10 pixels wide, around a centre. Told apart without colour: filled disc, ring, half
square, cross, diamond, triangle to the right, triangle down, dash."""

from chalicelib.timeline.picture import Mark
from chalicelib.timeline.style import NAMES

SIZE = 10


def shape(mark: Mark, x: float, y: float) -> str:
    """An SVG element."""
    kind = f'class="mark {NAMES[mark]}{" open" if mark in (Mark.COMPLETE, Mark.ABANDONED) else ""}"'
    match mark:
        case Mark.COUNTED:
            return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="4.2"/>'
        case Mark.COMPLETE:
            return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="3.6" stroke-width="1.8"/>'
        case Mark.CUT:  # a push that runs against a wall
            wall = f"M{x + 2.4:.1f} {y - 4.8:.1f}h2v9.6h-2z"
            return f'<path {kind} d="M{x - 4.4:.1f} {y - 3.4:.1f}h5v6.8h-5z{wall}" stroke="none" stroke-width="0"/>'
        case Mark.FAILED:
            return f'<path {kind} d="M{x - 3.6:.1f} {y - 3.6:.1f}l7.2 7.2m0 -7.2l-7.2 7.2" stroke-width="2.4"/>'
        case Mark.ABANDONED:
            return f'<path {kind} d="M{x:.1f} {y - 4.6:.1f}l4.6 4.6l-4.6 4.6l-4.6 -4.6z" stroke-width="1.8"/>'
        case Mark.LIVE:
            return f'<path {kind} d="M{x - 3.2:.1f} {y - 4.4:.1f}l7.4 4.4l-7.4 4.4z"/>'
        case Mark.RESTORED:
            return f'<path {kind} d="M{x - 4.6:.1f} {y - 3.4:.1f}h9.2l-4.6 7.6z"/>'
        case Mark.MISSED:
            return f'<path {kind} d="M{x - 3:.1f} {y:.1f}h6" stroke-width="1.6"/>'
