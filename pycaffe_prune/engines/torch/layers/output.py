"""Layers that write files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
from torch import Tensor

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.axes import extents

__all__ = ["LAYERS", "Hdf5Output"]

_DATASETS = ("data", "label")


class Hdf5Output(Layer):
    """Writes its bottoms into a file (`src/caffe/layers/hdf5_output_layer.cpp`).

    The file is made, or emptied, when the net is built. The first pass writes the datasets data and
    label, float32 with 4 axes, whatever the bottoms have; a second one cannot, as in Caffe.

    Raises:
        EngineError: The file cannot be made, or the bottoms are not what Caffe can write.
    """

    takes_any_shape = True

    def __init__(self, setup: LayerSetup) -> None:
        super().__init__(setup)
        self._path = Path(setup.param.hdf5_output_param.file_name)
        self._where = f"layer '{setup.param.name}' (HDF5Output)"
        for bottom in setup.bottoms:
            if len(bottom) > 4:
                raise EngineError(
                    f"{self._where}: its bottom has shape {extents(bottom)}, and Caffe writes at "
                    "most 4 axes; put a Flatten or Reshape before it"
                )
        try:
            h5py.File(self._path, "w").close()
        except OSError as error:
            raise EngineError(
                f"{self._where}: cannot make its file {self._path} ({error}); give it a path in a "
                "folder that is there and may be written to"
            ) from error

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Write the bottoms; there are no tops.

        Raises:
            EngineError: They do not have equally many images, or are not the first.
        """
        if bottoms[0].shape[:1] != bottoms[1].shape[:1]:
            raise EngineError(
                f"{self._where}: its bottoms have shapes "
                f"{' and '.join(extents(bottom.shape) for bottom in bottoms)}; their first axes "
                "must be equal"
            )
        with h5py.File(self._path, "r+") as file:
            if _DATASETS[0] in file:
                raise EngineError(
                    f"{self._where}: its file {self._path} holds a batch already, and Caffe's "
                    "layer can write one only; run one pass, or leave the layer out"
                )
            for name, bottom in zip(_DATASETS, bottoms, strict=True):
                shape = (*bottom.shape, *(1,) * (4 - bottom.dim()))
                file[name] = bottom.detach().float().cpu().numpy().reshape(shape)
        return ()


LAYERS: Mapping[str, type[Layer]] = {"HDF5Output": Hdf5Output}
