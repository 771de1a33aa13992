"""What a layer that writes refuses; what it writes: tests/pycaffe/scripts/hdf5_output.py."""

from pathlib import Path

import h5py
import pytest
import torch

from pycaffe_prune.engines.torch.layers.base import Layer, LayerSetup
from pycaffe_prune.engines.torch.layers.registry import make_layer
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter


def _layer(path: Path, *bottoms: tuple[int, ...]) -> Layer:
    param = LayerParameter(name="out", type="HDF5Output")
    param.hdf5_output_param.file_name = str(path)
    return make_layer(LayerSetup(param, bottoms, (), TEST))


def test_a_second_batch_is_refused_and_the_first_one_stays(tmp_path: Path) -> None:
    layer = _layer(tmp_path / "out.h5", (2, 3), (2,))
    layer.forward([torch.ones(2, 3), torch.zeros(2)], [])
    with pytest.raises(EngineError, match=r"'out' .* holds a batch already, .* one only"):
        layer.forward([torch.zeros(2, 3), torch.zeros(2)], [])
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["data"][...].sum() == 6


def test_what_caffe_cannot_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"'out' .* 1x2x3x4x5, and Caffe writes at most 4 axes"):
        _layer(tmp_path / "out.h5", (1, 2, 3, 4, 5), (1,))
    with pytest.raises(EngineError, match=r"'out' .*: cannot make its file .*nowhere/out.h5"):
        _layer(tmp_path / "nowhere" / "out.h5", (2, 3), (2,))
    layer = _layer(tmp_path / "out.h5", (2, 3), (3,))
    with pytest.raises(EngineError, match="2x3 and 3; their first axes must be equal"):
        layer.forward([torch.ones(2, 3), torch.zeros(3)], [])
