"""Shapes around Caffe's recurrent layers, LSTM and RNN.

The parameters are those of the unrolled net, each once and in the order in which its layers stand:
`RecurrentLayer::LayerSetUp` of `src/caffe/layers/recurrent_layer.cpp`, `FillUnrolledNet` of
`lstm_layer.cpp` and `rnn_layer.cpp`.
"""

import math
from collections.abc import Sequence

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import LayerParameter

__all__ = ["lstm", "lstm_unit", "rnn"]

Around = tuple[list[Shape], tuple[Shape, ...]]
"""Shapes of the tops and of the parameters."""


def lstm(param: LayerParameter, bottoms: Sequence[Shape]) -> Around:
    """Return the shapes around an LSTM: four gates, two hidden states (h and c).

    Its blobs: input weights, bias, weights of the static input if there is one, hidden weights.

    Raises:
        SurgeryError: The bottoms are none that Caffe would take.
    """
    return _unrolled(param, bottoms, gates=4, states=2)


def lstm_unit(bottoms: Sequence[Shape]) -> Around:
    """Return the shapes around an LSTMUnit, one step (`src/caffe/layers/lstm_unit_layer.cpp`).

    Raises:
        SurgeryError: The bottoms are none that Caffe would take.
    """
    cell, sums, marks = bottoms
    if len(cell) != 3 or cell[0] != 1 or sums != (1, cell[1], 4 * cell[2]) or marks != (1, cell[1]):
        raise SurgeryError(
            f"its bottoms have shapes {', '.join(map(extents, bottoms))}; they must be 1 x streams "
            "x units, 1 x streams x four times the units, and 1 x streams"
        )
    return [cell, cell], ()


def rnn(param: LayerParameter, bottoms: Sequence[Shape]) -> Around:
    """Return the shapes around an RNN: as `lstm`, then the output's weights and bias.

    Raises:
        SurgeryError: As `lstm`.
    """
    tops, params = _unrolled(param, bottoms, gates=1, states=1)
    outputs = param.recurrent_param.num_output
    return tops, (*params, (outputs, outputs), (outputs,))


def _unrolled(param: LayerParameter, bottoms: Sequence[Shape], gates: int, states: int) -> Around:
    settings = param.recurrent_param
    outputs = settings.num_output
    if not outputs:
        raise SurgeryError("has no num_output; give it one above 0")
    exposed = states if settings.expose_hidden else 0
    if len(bottoms) not in (2 + exposed, 3 + exposed):
        raise SurgeryError(
            f"has {len(bottoms)} bottoms; with expose_hidden {str(bool(exposed)).lower()} it takes "
            f"{2 + exposed}, and one more for a static input"
        )
    sequence, marks = bottoms[:2]
    if len(sequence) < 3 or marks != sequence[:2]:
        raise SurgeryError(
            f"its bottoms have shapes {extents(sequence)} and {extents(marks)}; they must be "
            "time steps x streams x values, and time steps x streams"
        )
    steps, streams = marks
    state = (1, streams, outputs)
    rows = gates * outputs
    static = bottoms[2:][: len(bottoms) - 2 - exposed]
    for shape in static:
        if len(shape) < 2 or shape[0] != streams:
            raise SurgeryError(
                f"its static input has shape {extents(shape)}; the first of two or more axes must "
                f"have the {streams} streams"
            )
    for shape in bottoms[len(bottoms) - exposed :] if exposed else ():
        if shape != state:
            raise SurgeryError(
                f"a hidden state at its bottom has shape {extents(shape)}; it must be "
                f"{extents(state)}"
            )
    params = (
        (rows, math.prod(sequence[2:])),
        (rows,),
        *((rows, math.prod(shape[1:])) for shape in static),
        (rows, outputs),
    )
    return [(steps, streams, outputs), *[state] * exposed], params
