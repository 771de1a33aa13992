import numpy as np
import pytest
from google.protobuf import text_format

from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.net.loading import Copied, copied_layers, new_layers

NET = """
layer { name: "data" type: "Input" top: "data" }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" } }
layer { name: "bn" type: "BatchNorm" bottom: "b" top: "b" }
"""


def layers() -> list[LayerParameter]:
    return list(text_format.Parse(NET, NetParameter()).layer)


def model(*names: str) -> Caffemodel:
    blobs = (np.ones(1, np.float32),)
    empty = Layer(LayerParameter(name="data"), ())
    return Caffemodel((empty, *(Layer(LayerParameter(name=name), blobs) for name in names)))


def test_layers_of_a_file_are_copied_by_name_or_unused() -> None:
    found = copied_layers(layers(), model("bn", "elsewhere", "a"))
    assert found == Copied(copied=("bn", "a"), unused=("elsewhere",))


@pytest.mark.parametrize(
    ("copied", "new"), [((), ("a", "bn")), (("a",), ("bn",)), (("a", "bn"), ())]
)
def test_layers_that_learn_and_are_not_copied_are_new_unless_they_share(
    copied: tuple[str, ...], new: tuple[str, ...]
) -> None:
    assert new_layers(layers(), copied) == new
