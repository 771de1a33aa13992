import numpy as np
import pytest
from google.protobuf.message import DecodeError

from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer
from pycaffe_prune.formats.outline import outline_bytes, read_outline


def test_an_outline_has_all_but_the_values() -> None:
    param = LayerParameter(name="ip1", type="InnerProduct", top=["ip1"])
    param.MergeFromString(b"\xc2\x3e\x03abc")  # a field that no Caffe knows
    net = NetParameter(name="a", force_backward=True)
    model = Caffemodel(
        (
            Layer(LayerParameter(name="data")),
            Layer(param, (np.ones((3, 4), np.float32), np.ones((0,), np.float32))),
        ),
        net,
    )
    found, layers = read_outline(outline_bytes(model))
    assert found == net
    assert [layer.param for layer in layers] == [layer.param for layer in model.layers]
    assert [layer.shapes for layer in layers] == [(), ((3, 4), (0,))]
    assert len(outline_bytes(model)) < 80


def test_text_that_is_none_is_refused() -> None:
    with pytest.raises((FormatError, DecodeError), match=r"UTF-8|parsing"):
        read_outline(b"\x0a\x01\xff")
