"""What the judge logs: choices at INFO, the filter and timings at DEBUG, to the logger "convbench".

``CONVBENCH_LOG=info`` or ``debug`` prints them on standard error.  Without it nothing is printed, and nothing formatted
unless the program has set up a handler of its own.
"""

from __future__ import annotations

import os
import sys
from functools import cache

LOGGER = "convbench"
VARIABLE = "CONVBENCH_LOG"
LEVELS = ("debug", "info")
FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"


def info(message: str, *arguments) -> None:
    """Log a choice."""
    logger = _logger()
    if logger is not None:
        logger.info(message, *arguments)


def debug(message: str, *arguments) -> None:
    """Log what led to a choice."""
    logger = _logger()
    if logger is not None:
        logger.debug(message, *arguments)


def _logger():
    """The logger, or None where no one can be listening."""
    level = os.environ.get(VARIABLE, "")
    if level:
        return _handled(level.lower())
    logging = sys.modules.get("logging")
    return logging.getLogger(LOGGER) if logging is not None else None


@cache
def _handled(level):
    """The logger, with a handler for standard error."""
    if level not in LEVELS:
        raise ValueError(f"{VARIABLE} is {level!r}; {' or '.join(LEVELS)} is accepted")
    import logging  # here: only a program that asked for it pays for the import

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    return logger
