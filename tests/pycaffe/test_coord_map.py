"""Layers whose fields do not tell where pixels are; the maps themselves are twins."""

import pytest

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe import layers as L  # noqa: N812 (NetSpec's own habit)
from pycaffe_prune.pycaffe.coord_map import coord_map_from_to, crop


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"kernel_h": 3, "kernel_w": 1}, "no coordinates from kernel_h, kernel_w"),
        ({"convolution_param": {"pad_h": 3, "kernel_size": 1}}, "no coordinates from pad_h"),
        ({"global_pooling": True}, "no coordinates without kernel_size"),
    ],
)
def test_fields_that_tell_no_coordinates_are_named(
    keywords: dict[str, object], message: str
) -> None:
    data = L.Input()
    with pytest.raises(PruneError, match=message) as raised:
        coord_map_from_to(L.Pooling(data, **keywords), data)
    assert isinstance(raised.value, AssertionError)  # as pycaffe's


def test_blobs_that_lie_alike_are_cropped_at_nought() -> None:
    data = L.Input()
    layer = crop(L.ReLU(data), L.TanH(data)).to_proto().layer[-1]
    assert (layer.crop_param.axis, list(layer.crop_param.offset)) == (2, [0])
