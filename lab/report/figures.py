"""Figures as SVG text to put inline: no dates, no random ids, colours taken from the page's own variables."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_INK, _QUIET, _MALLOC, _MEMSET, _AGAIN = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {
    _INK: "currentColor",
    _QUIET: "var(--quiet)",
    _MALLOC: "var(--malloc)",
    _MEMSET: "var(--memset)",
    _AGAIN: "var(--again)",
}
"""Stand-ins that no figure uses as real colours; each becomes a colour of the page, light or dark."""

_LABEL = 0.016
"""Width of a letter of a bar's label, as a share of the figure: browsers have wider fonts than matplotlib."""

# Any: matplotlib types the names of its settings in some versions and not in others.
_SETTINGS: dict[Any, Any] = {
    # Text stays text (readable, small), and ids depend on nothing but the figure.
    "svg.fonttype": "none",
    "svg.hashsalt": "faultlab",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}


@dataclass(frozen=True)
class Bar:
    """One guest in one program: faults by phase, and what to write beside the bar."""

    label: str
    malloc: int
    memset: int
    again: int


@dataclass(frozen=True)
class Group:
    """The bars of one program."""

    title: str
    bars: tuple[Bar, ...]


def faults_by_phase(groups: Sequence[Group], title: str, description: str) -> str:
    """Stacked bars, one for each guest in each program; title and description are for screen readers."""
    count = sum(len(group.bars) for group in groups)
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(5.4, 0.6 + 0.3 * count + 0.36 * len(groups)))
        bottom = 0.55 / figure.get_figheight()
        longest = max((len(bar.label) for group in groups for bar in group.bars), default=0)
        left = max(0.25, _LABEL * longest)
        axes = figure.add_axes((left, bottom, 0.98 - left, 0.99 - bottom))
        _draw(axes, groups)
        return _svg(figure, title, description)


def _draw(axes: Axes, groups: Sequence[Group]) -> None:
    position, places, names = 0.0, [], []
    longest = max((bar.malloc + bar.memset + bar.again for group in groups for bar in group.bars), default=1)
    for group in groups:
        axes.text(0, position, group.title, va="center", ha="left", fontweight="bold", fontsize=10)
        position += 0.9
        for bar in group.bars:
            start = 0
            for faults, colour in ((bar.malloc, _MALLOC), (bar.memset, _MEMSET), (bar.again, _AGAIN)):
                axes.barh(position, faults, left=start, height=0.62, color=colour, linewidth=0)
                start += faults
            axes.text(
                start + longest * 0.012, position, f"{bar.malloc} + {bar.memset}", va="center", fontsize=10
            )
            places.append(position)
            names.append(bar.label)
            position += 0.9
        position += 0.3
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(position - 0.7, -0.6)
    axes.set_xlim(0, longest * 1.24)
    axes.set_xlabel("minor page faults: in malloc + in the first memset")


def _svg(figure: Figure, title: str, description: str) -> str:
    """The figure's SVG element alone, scalable, named for assistive technology."""
    with io.StringIO() as stream:
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = stream.getvalue()
    text = text[text.index("<svg") :]
    # The stylesheet would apply to the whole page, and the fonts are the page's own.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"; font-family: [^;\"]+|font-family: [^;\"]+; ", "", text)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    box = re.search(r'viewBox="[^"]+"', text)
    head = f'<svg {box[0] if box else ""} role="img" aria-labelledby="figure-title figure-description">'
    names = f'<title id="figure-title">{title}</title><desc id="figure-description">{description}</desc>'
    return re.sub(r"<svg[^>]*>", lambda _: head + names, text, count=1)
