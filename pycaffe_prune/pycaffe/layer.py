"""The base of layers that are written in Python."""

from collections.abc import Sequence

from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.pycaffe.blobs import Blob, BlobVec

__all__ = ["Layer"]


class Layer:
    """What all layers of a net have, and the base of those written in Python.

    These define ``setup``, ``reshape``, ``forward`` and ``backward``. Before ``setup`` a net sets
    ``param_str``, the text of ``python_param``, and ``phase``.

    Args:
        param: The layer's definition.
    """

    def __init__(self, param: LayerParameter) -> None:
        self.__type, self.__blobs = param.type, BlobVec()

    @property
    def blobs(self) -> BlobVec:
        """The blobs to learn; ``setup`` may add some with ``add_blob``."""
        return self.__blobs

    @property
    def type(self) -> str:
        """Caffe's name of the type."""
        return self.__type

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Prepare the layer, once; to be written by the layer's author."""
        raise NotImplementedError

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops their shapes, before each pass; to be written by the layer's author."""
        raise NotImplementedError
