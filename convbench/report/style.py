"""Colours that tell engines apart, the same in the terminal, the plots and the pages."""

from __future__ import annotations

# Okabe and Ito's palette, which colour-blind readers tell apart too, without its yellow and black.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7f7f7f", "#8c6bb1", "#a6761d")

TERMINAL = ("bright_blue", "yellow", "green", "magenta", "red", "cyan", "bright_black", "bright_magenta", "bright_red")


def colours(engines: list[str]) -> dict[str, str]:
    """A colour for each engine, by position."""
    return _spread(engines, PALETTE)


def terminal_colours(engines: list[str]) -> dict[str, str]:
    """The same for terminals, which may know 16 colours only."""
    return _spread(engines, TERMINAL)


def _spread(engines, palette):
    return {name: palette[position % len(palette)] for position, name in enumerate(engines)}
