"""Fisher: Optimal Brain Damage with squared gradients in the place of second derivatives."""

from typing import ClassVar, Literal

from pycaffe_prune.methods.obd import Measured

__all__ = ["Fisher"]


class Fisher(Measured):
    """The lowest F·w²/2 go, F the mean square of images' gradients; the rest is retrained."""

    title: ClassVar[str] = "Fisher"
    source: ClassVar[str] = "the usual stand-in for the Hessian of Optimal Brain Damage"
    criterion: ClassVar[str] = "fisher"

    kind: Literal["fisher"] = "fisher"
