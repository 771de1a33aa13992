"""Random masks: the control that every choice of connections must beat."""

from typing import ClassVar, Literal

from pycaffe_prune.experiments.settings import Seed
from pycaffe_prune.methods.sparse import Choice, Sparse

__all__ = ["Random"]


class Random(Sparse):
    """Weights drawn by lot go, whatever they are; the rest is retrained."""

    title: ClassVar[str] = "random connections"
    source: ClassVar[str] = "a control"
    control: ClassVar[str | None] = "baseline"
    criterion: ClassVar[str] = "random"

    kind: Literal["random-connections"] = "random-connections"
    seed: Seed = 0
    """Of the lots."""

    @property
    def choice(self) -> Choice:  # noqa: D102  (see Sparse)
        return Choice(self.criterion, self.scope, seed=self.seed)
