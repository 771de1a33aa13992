"""Products of what a mask keeps are the dense products under the mask, to rounding."""

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pycaffe_prune.engines.torch.layers.base import LayerSetup
from pycaffe_prune.engines.torch.layers.inner_product import InnerProduct
from pycaffe_prune.engines.torch.layers.kept_products import LiveProduct, SparseProduct
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter

LAYER = """name: "ip" type: "InnerProduct" inner_product_param {{
  num_output: {units} axis: {axis} bias_term: {bias} }}"""
BOTTOM = (3, 2, 4)
masks = st.tuples(st.integers(1, 5), st.sampled_from([1, 2])).flatmap(
    lambda drawn: arrays(np.bool_, (drawn[0], 8 if drawn[1] == 1 else 4))
)


@pytest.mark.parametrize("kind", [LiveProduct, SparseProduct])
@settings(max_examples=30)
@given(mask=masks, has_bias=st.booleans(), seed=st.integers(0, 99))
def test_both_passes_are_those_of_the_dense_product(kind, mask, has_bias, seed):
    units, inputs = mask.shape
    axis = 1 if inputs == 8 else 2
    text = LAYER.format(units=units, axis=axis, bias=str(has_bias).lower())
    tops = (*BOTTOM[:axis], units)
    setup = LayerSetup(text_format.Parse(text, LayerParameter()), (BOTTOM,), (tops,), TRAIN)
    random = np.random.default_rng(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(shape).astype(np.float32))

    bottom, bias, top_diff = drawn(*BOTTOM), drawn(units), drawn(*tops)
    if seed % 2:  # strides as another such layer leaves them
        bottom = bottom.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    weight = drawn(units, inputs) * torch.from_numpy(mask)
    dense, kept = InnerProduct(setup), kind(setup, mask)
    places = torch.from_numpy(kept.places)
    assert (kept.places >= mask).all()
    before = drawn(units, inputs)

    found = []
    for layer, own in ((dense, weight), (kept, weight[places])):
        diffs = [before.clone() if layer is dense else before[places], torch.ones(units)]
        count = 1 + has_bias
        top, saved = layer.forward_saving([bottom], [own, bias][:count])
        back = layer.backward(saved, [top_diff], [True], diffs[:count])
        assert layer.backward(saved, [top_diff], [False], [None] * count) == [None]
        grads = diffs[0][places] if layer is dense else diffs[0]
        found.append([*top, *back, grads, diffs[1]])
        assert top[0].shape == tops
        assert back[0].shape == BOTTOM
    for mine, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
