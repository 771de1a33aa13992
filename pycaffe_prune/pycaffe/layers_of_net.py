"""The layers of a net as scripts see them."""

from collections.abc import Sequence

from pycaffe_prune.pycaffe.blobs import Blob, BlobVec
from pycaffe_prune.pycaffe.layer import Layer
from pycaffe_prune.pycaffe.python_step import PythonStep
from pycaffe_prune.pycaffe.steps import Step

__all__ = ["LayerVec", "layer_of"]


class _OfNet(Layer):
    """A layer of the engine, in its place in a net."""

    def __init__(self, step: Step) -> None:
        super().__init__(step.param)
        self._step = step

    @property
    def blobs(self) -> BlobVec:
        """Weight, bias, and whatever the type has."""
        return self._step.blobs

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Do nothing: the net has set the layer up."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:  # noqa: ARG002
        """Let the shapes of the net's own tops follow those of its bottoms."""
        self._step.reshape()


class LayerVec(list[Layer]):
    """The layers of a net."""


def layer_of(step: Step) -> Layer:
    """Return what scripts see of a layer: its own object where it is written in Python."""
    return step.instance if isinstance(step, PythonStep) else _OfNet(step)
