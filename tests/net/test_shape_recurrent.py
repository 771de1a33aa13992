from collections.abc import Callable, Sequence
from itertools import product

import pytest
from google.protobuf import text_format

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.net.shapes import infer_shapes
from tests.net.layer_nets import net_around

STATES = {"LSTM": 2, "RNN": 1}
STATIC = [(2, 3), (2, 3, 2)]


def recurrent(kind: str, static: Sequence[int] | None, exposed: bool) -> NetParameter:
    """A layer on a sequence of 4 steps and 2 streams, with 5 outputs."""
    states = STATES[kind] if exposed else 0
    bottoms = [(4, 2, 3, 2), (4, 2), *([static] if static else []), *[(1, 2, 5)] * states]
    settings = f"recurrent_param {{ num_output: 5 expose_hidden: {str(exposed).lower()} }}"
    return text_format.Parse(net_around(kind, bottoms, settings, 1 + states), NetParameter())


@pytest.mark.real_caffe
def test_shapes_are_those_of_the_real_caffe(
    built_by_caffe: Callable, require_equal: Callable
) -> None:
    nets = [
        recurrent(kind, static, exposed)
        for kind, static, exposed in product(STATES, [None, *STATIC], [False, True])
    ]
    unit = net_around("LSTMUnit", [(1, 2, 3), (1, 2, 12), (1, 2)], "", 2)
    nets.append(text_format.Parse(unit, NetParameter()))
    built = built_by_caffe([(net, TEST) for net in nets])
    for net, found in zip(nets, built, strict=True):
        require_equal(net.layer, infer_shapes(net.layer), found)


@pytest.mark.parametrize(
    ("kind", "bottoms", "settings", "message"),
    [
        ("LSTM", [(4, 2, 3), (4, 2)], "", "has no num_output"),
        ("LSTM", [(4, 2, 3), (2, 4)], "num_output: 5", "4x2x3 and 2x4"),
        ("RNN", [(4, 2), (4, 2)], "num_output: 5", "4x2 and 4x2"),
        ("RNN", [(4, 2, 3), (4, 2), (3, 3)], "num_output: 5", "its static input has shape 3x3"),
        ("LSTM", [(4, 2, 3), (4, 2)], "num_output: 5 expose_hidden: true", "has 2 bottoms"),
        ("LSTMUnit", [(1, 2, 3), (1, 2, 9), (1, 2)], "", "shapes 1x2x3, 1x2x9, 1x2; they must be"),
        ("LSTMUnit", [(2, 2, 3), (2, 2, 12), (2, 2)], "", "1 x streams x units"),
        (
            "RNN",
            [(4, 2, 3), (4, 2), (1, 2, 4)],
            "num_output: 5 expose_hidden: true",
            "a hidden state at its bottom has shape 1x2x4; it must be 1x2x5",
        ),
    ],
)
def test_bottoms_that_caffe_would_not_take_are_refused(
    kind: str, bottoms: Sequence[Sequence[int]], settings: str, message: str
) -> None:
    told = f"recurrent_param {{ {settings} }}" if settings else ""
    text = net_around(kind, bottoms, told, 2 if kind == "LSTMUnit" else 1)
    with pytest.raises(SurgeryError, match=message):
        infer_shapes(text_format.Parse(text, NetParameter()).layer)
