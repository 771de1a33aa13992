import pytest
import torch
from google.protobuf import text_format

from pycaffe_prune.engines.torch.data.sources import make_source
from pycaffe_prune.errors import DataError, EngineError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter

CPU = torch.device("cpu")
MEMORY = (
    'type: "MemoryData" top: "label" '
    "memory_data_param { batch_size: 1 channels: 1 height: 1 width: 1 }"
)


def layer_of(text: str) -> LayerParameter:
    return text_format.Parse('name: "data" top: "data" ' + text, LayerParameter())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('type: "Input" input_param { shape { dim: 1 } }', "InputSource"),
        (MEMORY, "MemorySource"),
        ('type: "DummyData" dummy_data_param { shape { dim: 1 } }', "DummySource"),
    ],
)
def test_each_type_has_its_source(text: str, name: str) -> None:
    assert type(make_source(layer_of(text), TRAIN, CPU, 1)).__name__ == name


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(EngineError, match=r"'data': .*'Unheard'; use --engine caffe"):
        make_source(layer_of('type: "Unheard"'), TRAIN, CPU, 1)


@pytest.mark.parametrize(
    "text",
    [
        'type: "Data"',
        'type: "HDF5Data"',
        'type: "WindowData"',
        'type: "ImageData" image_data_param { batch_size: 0 }',
    ],
)
def test_a_batch_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="batch_size of at least 1"):
        make_source(layer_of(text), TRAIN, CPU, 1)
