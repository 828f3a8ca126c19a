"""How engines are told apart, the same in the terminal, the plots and the pages: a colour and a marker each."""

from __future__ import annotations

# Okabe and Ito's palette, which colour-blind readers tell apart too, without its yellow and black.  In the engines'
# order, so that those which most often meet on a map, direct and fft, are far apart: blue and orange.
PALETTE = ("#0072b2", "#009e73", "#56b4e9", "#cc79a7", "#8c6bb1", "#e69f00", "#7f7f7f", "#d55e00", "#a6761d")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")  # ten against nine colours: the pairs repeat late

TERMINAL = ("bright_blue", "green", "cyan", "magenta", "bright_magenta", "yellow", "bright_black", "red", "bright_red")

# The plots' own inks. A page replaces them by its colour scheme's (`svg.inline`), so no engine may have them.
INK, SOFT, LINE, PAPER = "#22262a", "#66707b", "#e0e4e8", "#fdfdfe"
BRIGHT, DARK = "#ffffff", "#000000"  # texts upon an engine's colour, whatever the scheme
EVEN = 0.179  # the luminance upon which both have the same contrast, 4.58: (1.05 · 0.05)^½ − 0.05


def colours(engines: list[str]) -> dict[str, str]:
    """A colour for each engine, by position."""
    return _spread(engines, PALETTE)


def markers(engines: list[str]) -> dict[str, str]:
    """A marker (matplotlib's letter) for each engine, by position."""
    return _spread(engines, MARKERS)


def terminal_colours(engines: list[str]) -> dict[str, str]:
    """Colours for terminals, which may know 16 only."""
    return _spread(engines, TERMINAL)


def upon(colour: str) -> str:
    """The ink that is readable upon `colour`: bright or dark, by the contrast of WCAG 2."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return DARK if luminance > EVEN else BRIGHT


def _spread(engines, palette):
    return {name: palette[position % len(palette)] for position, name in enumerate(engines)}
