from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.engines.data_shapes import data_shapes
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter
from pycaffe_prune.net.graph import NetState

DATA = """data_param { source: "DATA/mnist_train_lmdb" batch_size: 7 backend: LMDB }"""
LIST = """image_data_param { source: "FOLDER/list.txt" batch_size: 2 SETTINGS }"""
CROP = "transform_param { crop_size: 2 }"


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Data"' + DATA,
        'type: "Data" transform_param { crop_size: 5 }' + DATA,
        'type: "Data" transform_param { force_color: true }' + DATA,  # not of raw pixels
        'type: "ImageData"' + LIST.replace("SETTINGS", ""),
        'type: "ImageData"' + LIST.replace("SETTINGS", "is_color: false") + CROP,
        'type: "ImageData"' + LIST.replace("SETTINGS", "new_height: 6 new_width: 5"),
        'type: "HDF5Data" hdf5_data_param { source: "FOLDER/hdf5.txt" batch_size: 2 }',
        'type: "DummyData" dummy_data_param { shape { dim: 2 } }',
    ],
)
def test_shapes_are_those_that_the_engine_builds(layer: str, tmp_path: Path, digits: Path) -> None:
    cv2.imwrite(str(tmp_path / "a b.png"), np.zeros((4, 3, 3), np.uint8))
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a b.png 1\n")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"] = np.zeros((4, 3, 2)), np.zeros((4, 1))
    (tmp_path / "hdf5.txt").write_text(f"{tmp_path}/a.h5\n")
    text = layer.replace("DATA/", f"{digits}/").replace("FOLDER/", f"{tmp_path}/")
    definition = text_format.Parse(
        f'layer {{ name: "d" top: "data" top: "label" {text} }}', NetParameter()
    )
    net = Net(definition, NetState(TRAIN))
    net.fetch()
    built = {name: view.data.shape for name, view in net.blobs.items()}
    net.close()
    assert data_shapes(definition.layer) == ({} if "DummyData" in layer else built)
