"""A panel as SVG text, drawn by hand: the same on every machine, in the page's own colours.

Lines differ in colour, in dashes and in the shape of their points; the numbers stand at the points.
"""

from __future__ import annotations

from html import escape

from lab.report.matrix.series import Panel

WIDTH, HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 14, 18, 24
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 2", "5 2 1 2 1 2", "12 4")
_LETTER = 12
"""Height of a line of text."""

KINDS = len(_DASHES)
"""Lines that can be told apart; more begin again with the first."""


def svg(panel: Panel, identity: str) -> str:
    """The panel; ``identity`` is unique in its page, for the names that assistive technology reads."""
    values = [value for curve in panel.curves for value in curve.values if value is not None]
    low, high = _range(values)
    spoken = "; ".join(
        f"{curve.name}: "
        + ", ".join(
            f"{tick} {value:,}"
            for tick, value in zip(panel.ticks, curve.values, strict=True)
            if value is not None
        )
        for curve in panel.curves
    )
    parts = [
        f'<svg class="series" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="{identity}-title {identity}-text">',
        f'<title id="{identity}-title">{escape(panel.title)}</title>',
        f'<desc id="{identity}-text">{escape(spoken)}</desc>',
        *_frame(panel, low, high),
    ]
    taken: list[tuple[float, float, str]] = []
    for number, curve in enumerate(panel.curves):
        points = [
            (_x(panel, place), _y(value, low, high), value)
            for place, value in enumerate(curve.values)
            if value is not None
        ]
        parts += _curve(number, points)
        parts += _numbers(points, taken)
    return "".join((*parts, "</svg>"))


def key(number: int) -> str:
    """A line with its point, to stand in a legend."""
    kind = number % KINDS
    return (
        f'<svg class="series-key" viewBox="0 0 34 12" aria-hidden="true" width="34" height="12">'
        f'<path class="curve curve-{kind}" d="M1 6H33"{_dashes(kind)}/>{_point(kind, 17, 6)}</svg>'
    )


def _range(values: list[int]) -> tuple[int, int]:
    """From 0 where that leaves half of the height to what differs; else close to the values."""
    low, high = min(values, default=0), max(values, default=1)
    if high == low or low <= high / 2:
        return 0, max(high, 1)
    margin = max((high - low) // 4, 1)
    return low - margin, high + margin


def _x(panel: Panel, place: int) -> float:
    steps = max(len(panel.ticks) - 1, 1)
    return _LEFT + 18 + place * (WIDTH - _LEFT - _RIGHT - 36) / steps


def _y(value: int, low: int, high: int) -> float:
    return _TOP + (high - value) * (HEIGHT - _TOP - _BOTTOM) / (high - low)


def _frame(panel: Panel, low: int, high: int) -> list[str]:
    bottom = HEIGHT - _BOTTOM
    parts = [f'<path class="axis-line" d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}"/>']
    for value in (low, high):
        parts.append(f'<text x="{_LEFT - 4}" y="{_y(value, low, high) + 4:.0f}" class="end">{value:,}</text>')
    for place, tick in enumerate(panel.ticks):
        x = _x(panel, place)
        parts.append(f'<path class="axis-line" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 7}" class="middle">{escape(tick)}</text>')
    return parts


def _curve(number: int, points: list[tuple[float, float, int]]) -> list[str]:
    kind = number % KINDS
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points)
    line = [f'<path class="curve curve-{kind}" d="M{path}"{_dashes(kind)}/>'] if points else []
    return line + [_point(kind, x, y) for x, y, _ in points]


def _dashes(kind: int) -> str:
    return f' stroke-dasharray="{_DASHES[kind]}"' if _DASHES[kind] else ""


def _point(kind: int, x: float, y: float) -> str:
    shapes = (
        f"M{x - 3.5:.1f} {y:.1f}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0",
        f"M{x - 3.5:.1f} {y - 3.5:.1f}h7v7h-7z",
        f"M{x:.1f} {y - 4.5:.1f}l4.5 8h-9z",
        f"M{x:.1f} {y - 5:.1f}l4.5 5l-4.5 5l-4.5 -5z",
        f"M{x:.1f} {y + 4.5:.1f}l4.5 -8h-9z",
        f"M{x - 1.5:.1f} {y - 4.5:.1f}h3v9h-3z",
        f"M{x - 4.5:.1f} {y - 1.5:.1f}h9v3h-9z",
    )
    return f'<path class="point curve-{kind}" d="{shapes[kind]}"/>'


def _numbers(points: list[tuple[float, float, int]], taken: list[tuple[float, float, str]]) -> list[str]:
    """Each number once, above or below its point; one that finds no room is left to the table."""
    parts: list[str] = []
    for x, y, value in points:
        text = f"{value:,}"
        if any(text == other and abs(x - at) < 1 and abs(y - there) < 40 for at, there, other in taken):
            continue
        for place in (y - 8, y + 16):
            if all(abs(x - at) > 24 or abs(place - there) >= _LETTER for at, there, _ in taken):
                taken.append((x, place, text))
                parts.append(f'<text x="{x:.1f}" y="{place:.1f}" class="middle number">{text}</text>')
                break
    return parts
