import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycaffe_prune.formats.caffe_pb2 import ConvolutionParameter, LayerParameter, SolverParameter
from pycaffe_prune.formats.spelling import distance, nearest_name


@pytest.mark.parametrize(
    ("name", "message", "meant"),
    [
        ("num_ouput", ConvolutionParameter, "num_output"),
        ("num_ouptut", ConvolutionParameter, "num_output"),
        ("kernelsize", ConvolutionParameter, "kernel_size"),
        ("axes", ConvolutionParameter, "axis"),
        ("pads", ConvolutionParameter, "pad"),
        ("bottem", LayerParameter, "bottom"),
        ("Type", LayerParameter, "type"),
        ("convolution_parameter", LayerParameter, "convolution_param"),
        ("momentun", SolverParameter, "momentum"),
        ("bananas", ConvolutionParameter, ""),
        ("bn_param", LayerParameter, ""),
        ("permute_param", LayerParameter, ""),
    ],
)
def test_slips_are_told_from_other_names(name: str, message: type, meant: str) -> None:
    known = [field.name for field in message.DESCRIPTOR.fields]
    assert nearest_name(name, known) == meant


@given(st.text("ab_", max_size=6), st.text("ab_", max_size=6))
def test_the_distance_is_one(one: str, other: str) -> None:
    assert distance(one, other) == distance(other, one) <= max(len(one), len(other))
    assert (distance(one, other) == 0) == (one == other)
    for at in range(len(one)):
        assert distance(one, one[:at] + one[at + 1 :]) == 1
        assert distance(one, one[:at] + "x" + one[at + 1 :]) == 1
        swapped = one[:at] + one[at : at + 2][::-1] + one[at + 2 :]
        assert distance(one, swapped) == (swapped != one)
