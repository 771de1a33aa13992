"""Options that several commands share, and the engine that they lead to."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from pycaffe_prune.engines.caffe_engine import CaffeEngine
from pycaffe_prune.engines.caffe_python import find_caffe_python

__all__ = ["caffe_python_option", "make_engine", "path_type"]

_F = TypeVar("_F", bound=Callable[..., object])

path_type = click.Path(path_type=Path)
"""A path; whether it exists is checked where it is read, with a better sentence."""


def caffe_python_option(function: _F) -> _F:
    """Add ``--caffe-python``."""
    return click.option(
        "--caffe-python",
        type=path_type,
        help="A Python that can import caffe (default: $CAFFE_PYTHON, else the private prefix).",
    )(function)


def make_engine(caffe_python: Path | None) -> CaffeEngine:
    """Return the real Caffe as engine.

    Raises:
        EngineError: No Python with caffe can be found.
    """
    return CaffeEngine(find_caffe_python(caffe_python).executable)
