"""Magnitude: the weights of smallest absolute value go, as many as a sparsity says."""

from typing import ClassVar, Literal

from pycaffe_prune.methods.sparse import Sparse

__all__ = ["Magnitude"]


class Magnitude(Sparse):
    """The smallest |w| go, a share of each layer or of all together; the rest is retrained."""

    title: ClassVar[str] = "magnitude"
    source: ClassVar[str] = "the common baseline (Blalock et al. 2020)"
    criterion: ClassVar[str] = "magnitude"

    kind: Literal["magnitude"] = "magnitude"
