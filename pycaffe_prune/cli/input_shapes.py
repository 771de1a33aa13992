"""The option ``--input-shape NAME=64x1x28x28``: shapes that a prototxt does not tell."""

from collections.abc import Callable
from typing import TypeVar

import click

from pycaffe_prune.net.shapes import Shape

__all__ = ["input_shapes_option"]

_F = TypeVar("_F", bound=Callable[..., object])


def _parse(
    _ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]
) -> dict[str, Shape]:
    return dict(map(_named_shape, texts))


def _named_shape(text: str) -> tuple[str, Shape]:
    name, _, extents = text.rpartition("=")
    digits = extents.split("x")
    if not name or not all(part.isdecimal() and int(part) for part in digits):
        raise click.BadParameter(f"'{text}' is not of the form data=64x1x28x28")
    return name, tuple(map(int, digits))


def input_shapes_option(function: _F) -> _F:
    """Add ``--input-shape``, repeatable: the parameter ``inputs``, shapes by blob name."""
    return click.option(
        "--input-shape",
        "inputs",
        multiple=True,
        metavar="NAME=SHAPE",
        callback=_parse,
        help="Shape of a blob that the prototxt does not tell, as data=64x1x28x28; repeatable.",
    )(function)
