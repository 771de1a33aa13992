"""Layers written in Python, by whoever wrote the script."""

import importlib
from typing import Any

from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.pycaffe.blobs import BoolVec, RawBlobVec
from pycaffe_prune.pycaffe.errors import CheckError
from pycaffe_prune.pycaffe.layer import Layer
from pycaffe_prune.pycaffe.steps import Place, Step

__all__ = ["PythonStep"]


class PythonStep(Step):
    """A layer of the type ``Python`` (`include/caffe/layers/python_layer.hpp`).

    Its class is what ``python_param`` names, of any module that can be imported; its errors come
    through as they are.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.instance = _made(self.param)
        self.blobs = self.instance.blobs
        self.blobs.device = place.device
        self._bottoms, self._tops = RawBlobVec(self.bottoms), RawBlobVec(self.tops)

    def set_up(self) -> None:
        """See `Step.set_up`."""
        layer: Any = self.instance
        layer.param_str = self.param.python_param.param_str
        layer.phase = int(self.param.phase)
        layer.setup(self._bottoms, self._tops)
        layer.reshape(self._bottoms, self._tops)

    def reshape(self) -> None:
        """See `Step.reshape`."""
        layer: Any = self.instance
        layer.reshape(self._bottoms, self._tops)

    def forward(self) -> None:
        """See `Step.forward`."""
        layer: Any = self.instance
        layer.reshape(self._bottoms, self._tops)
        layer.forward(self._bottoms, self._tops)

    def backward(self) -> None:
        """See `Step.backward`."""
        layer: Any = self.instance
        layer.backward(self._tops, BoolVec(self.propagate), self._bottoms)


def _made(param: LayerParameter) -> Layer:
    settings = param.python_param
    module = importlib.import_module(settings.module)
    found = getattr(module, settings.layer)(param)
    if not isinstance(found, Layer):
        raise CheckError(
            f"layer '{param.name}' (Python): {settings.module}.{settings.layer} is no caffe.Layer"
        )
    return found
