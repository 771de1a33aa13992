"""The console that commands print their tables to."""

import os
import sys

from rich.console import Console

from pycaffe_prune.screen import Screen

__all__ = ["table_console"]

_UNBROKEN = 10_000
"""Columns where no one looks: names of layers can be searched for, and rows are lines."""


def table_console() -> Console:
    """Return a console on standard output: of the terminal's width, of $COLUMNS, or without bound.

    Where the output is no terminal and $COLUMNS says nothing, no row is broken over lines.
    """
    bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Screen(width=None if bounded else _UNBROKEN)
