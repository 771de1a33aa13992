"""Options that the commands which change a model share: what is read and written, which layers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from pycaffe_prune.cli.options import (
    caffe_python_option,
    device_option,
    engine_option,
    path_type,
    trust_option,
)
from pycaffe_prune.engines.choice import EngineName, EngineWish
from pycaffe_prune.net.state_wish import StateWish

__all__ = ["OF_IMAGES", "Images", "image_options", "layers_option", "model_options"]

_F = TypeVar("_F", bound=Callable[..., object])

OF_IMAGES = ("data", "images", "engine", "device", "trust", "caffe_python")
"""The parameters of `image_options`."""


@dataclass(frozen=True)
class Images:
    """Where training images come from, how many are wanted, and what runs them through the net."""

    net_path: Path
    state: StateWish
    """Which layers of the net the images run through."""
    data: Path | None
    count: int | None
    wish: EngineWish


def model_options(weights: str, out: str) -> Callable[[_F], _F]:
    """Add ``--net``, ``--weights`` and ``--out``; the latter two's help is told."""

    def added(function: _F) -> _F:
        for name, told in (
            ("--out", out),
            ("--weights", weights),
            ("--net", "Net prototxt of the weights."),
        ):
            function = click.option(name, type=path_type, required=True, help=told)(function)
        return function

    return added


def layers_option(plain: str) -> Callable[[_F], _F]:
    """Add ``--layers``: to which a value without a layer's name, such as ``plain``, applies."""
    return click.option(
        "--layers",
        default="InnerProduct",
        show_default=True,
        help=f"To which layers a plain {plain} applies: names, patterns (conv*), types "
        "(Convolution), or all; with commas.",
    )


def image_options(images: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add those of training images: the parameter ``images``, an `Images`.

    Below `state_options`, to whose layers it belongs; ``images`` is the help of ``--images``.
    """

    def added(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def bundled(
            *arguments: object,
            net: Path,
            state: StateWish,
            data: Path | None,
            images: int | None,
            engine: EngineName,
            device: str,
            trust: bool,
            caffe_python: Path | None,
            **options: Any,
        ) -> None:
            wish = EngineWish(engine, caffe_python, device, tf32=False, trust=trust)
            told = Images(net, state, data, images, wish)
            function(*arguments, net=net, state=state, images=told, **options)

        data = click.option(
            "--data", type=path_type, help="Of the training images: folder of the net's LMDBs."
        )
        count = click.option("--images", type=click.IntRange(1), help=images)
        return data(count(engine_option(device_option(trust_option(caffe_python_option(bundled))))))

    return added
