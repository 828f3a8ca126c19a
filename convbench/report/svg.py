"""Figures as SVG texts: alone in a file, and inside a page whose colour scheme they follow."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

from convbench.report.style import INK, LINE, PAPER, SOFT

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "svg.fonttype": "none",  # texts stay texts: small, searchable, and a browser's own font will do
    "svg.hashsalt": "convbench",  # the same report gives the same file
    "text.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.handletextpad": 0.3,
    "legend.columnspacing": 1.0,
}
_SCHEME = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--paper)"}
_POINT = 4 / 3  # CSS pixels


def styled():
    """The context in which every figure is made and written."""
    return matplotlib.rc_context(STYLE)


def text(figure: Figure) -> str:
    """A figure as an SVG file's text, the same for the same figure."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return stream.getvalue()


def inline(svg: str, name: str, title: str, hints: Mapping[str, str] | None = None) -> str:
    """An SVG file's text as an element of an HTML page.

    Parameters
    ----------
    svg : str
        What `text` gave.
    name : str
        Unique on the page; every id inside gets it as a prefix.
    title : str
        What a reader that sees no picture is told.
    hints : mapping of str to str
        Texts to show when one points at the group of that id.
    """
    body = svg[svg.index("<svg ") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # it would style the whole page
    for identity, hint in (hints or {}).items():
        body = body.replace(f'<g id="{identity}">', f'<g id="{identity}"><title>{html.escape(hint)}</title>', 1)
    body = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", body)
    for ink, variable in _SCHEME.items():
        body = body.replace(ink, variable)
    body = body.replace("'DejaVu Sans'", "var(--font)")
    width = float(re.search(r'<svg [^>]*?width="([\d.]+)pt"', body)[1]) * _POINT
    head = f'<svg style="--width: {width:.0f}px" role="img" aria-label="{html.escape(title)}"'
    body = re.sub(r'^<svg ([^>]*?)width="[^"]*"', rf"{head} \1", body, count=1)
    body = re.sub(r'^(<svg [^>]*?)height="[^"]*pt" ', r"\1", body, count=1)
    return re.sub(r"\n\s*", "\n", body).replace(' xmlns="http://www.w3.org/2000/svg"', "").strip()
