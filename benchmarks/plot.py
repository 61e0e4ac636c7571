"""Small plots as SVG, readable on light and on dark pages: panels side by side, with points and lines."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, GAP = 200, 120, 34   # of a panel, and between panels
BESIDE = 84                         # height of what is written over and under a panel
# Clear on white and on black.
INK, FAINT, FIRST, SECOND = "#808080", "#8888", "#8a8f98", "#3b82f6"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """Points in a panel, joined or each on its own."""

    points: Points
    color: str = FIRST
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """One plot: lines over one axis, the least and the largest value at their heights."""

    title: str
    note: str
    lines: Sequence[Line]
    logarithmic: bool = False                            # both axes
    from_zero: bool = False                              # the upright axis begins at 0
    along: str = ""                                      # what runs to the right
    value: Callable[[float], str] = "{:.3g}".format      # how a number is written


def figure(panels: Sequence[Panel], paper: str | None = None, columns: int | None = None) -> str:
    """Give the panels as SVG, `columns` in a row (None: all). paper: a color behind them; None: the page's own."""
    behind = "" if paper is None else f'<rect width="100%" height="100%" fill="{paper}"/>'
    columns = columns or len(panels)
    rows, across, down = math.ceil(len(panels) / columns), WIDTH + GAP, HEIGHT + BESIDE
    width, height = min(columns, len(panels)) * across + GAP, rows * down
    body = "".join(
        f'<g transform="translate({GAP + place % columns * across} {40 + place // columns * down})">{_drawn(panel)}</g>'
        for place, panel in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}">{behind}{body}</svg>\n'
    )


def _drawn(panel: Panel) -> str:
    every = [point for line in panel.lines for point in line.points]
    scale = math.log10 if panel.logarithmic else float
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    if panel.from_zero and not panel.logarithmic:
        left, low = 0.0, 0.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = (scale(x) - scale(left)) / ((scale(right) - scale(left)) or 1)
        return WIDTH * across, HEIGHT * (1 - (scale(y) - scale(low)) / ((scale(high) - scale(low)) or 1))

    def drawn(line: Line) -> str:
        places = [place(*point) for point in line.points]
        if not line.joined:
            return "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{line.color}"/>' for x, y in places)
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        return f'<polyline points="{joined}" fill="none" stroke="{line.color}" stroke-width="1.5"/>'

    ends = f'<text y="{HEIGHT + 14}">{left:,.0f}</text>' + (
        f'<text x="{WIDTH}" y="{HEIGHT + 14}" text-anchor="end">{right:,.0f}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT + 14}" text-anchor="middle">{escape(panel.along)}</text>'
    )
    return (
        f'<text y="-22" font-weight="bold">{escape(panel.title)}</text><text y="-8">{escape(panel.note)}</text>'
        f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="{FAINT}"/>'
        + "".join(drawn(line) for line in panel.lines)
        + f'<text x="4" y="10">{escape(panel.value(high))}</text>'
        + f'<text x="4" y="{HEIGHT - 4}">{escape(panel.value(low))}</text>'
        + (ends if panel.along else "")
    )
