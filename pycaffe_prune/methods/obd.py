"""Optimal Brain Damage: the weights go by which the loss rises least, to second order."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pycaffe_prune.methods.sparse import Choice, Sparse

__all__ = ["Measured", "OptimalBrainDamage"]


class Measured(Sparse):
    """Methods that measure curvature on training images."""

    engines: ClassVar[frozenset[str]] = frozenset({"torch"})

    batches: int = Field(default=100, gt=0, lt=1 << 31)
    """Of the net's phase TRAIN, by which curvature is measured before each round."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """The solver's: how much of the loss's slope is counted besides."""

    @property
    def choice(self) -> Choice:  # noqa: D102  (see Sparse)
        return Choice(
            self.criterion, self.scope, batches=self.batches, weight_decay=self.weight_decay
        )


class OptimalBrainDamage(Measured):
    """The lowest h·w²/2 go, h the diagonal of the Hessian; the rest is retrained."""

    title: ClassVar[str] = "Optimal Brain Damage"
    source: ClassVar[str] = "LeCun, Denker and Solla 1989"
    criterion: ClassVar[str] = "obd"

    kind: Literal["obd"] = "obd"
