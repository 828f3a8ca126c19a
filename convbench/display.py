"""Numbers and tables as people read them, in plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def seconds(value: float) -> str:
    """1.23 ms, for example, to three digits."""
    scale, unit = next(((s, u) for s, u in _SECONDS if value >= s), _SECONDS[-1])
    return f"{value / scale:.3g} {unit}"


def size(count: int) -> str:
    """1.5 MiB, for example."""
    scale, unit = next(((s, u) for s, u in _BYTES if count >= s), (1, "B"))
    return f"{count / scale:.3g} {unit}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], last_is_text: bool = True) -> str:
    """Columns under a header: the first (and last) left-aligned, the others right-aligned."""
    rows = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    left = {0, len(header) - 1} if last_is_text else {0}

    def line(row):
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in rows)
