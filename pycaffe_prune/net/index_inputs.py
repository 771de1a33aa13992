"""Data blobs whose values are whole numbers by their nature: indices, selections, regions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from pycaffe_prune.net.graph import NetGraph, NetState, Top, layers_in_state

__all__ = ["IndexUse", "index_uses", "require_indices"]

_OF_REGIONS = frozenset({"PSROIPooling", "ROIAlign", "ROIPooling"})
"""Types whose second bottom has a region a row (`roi_pooling_layer.cpp` of py-faster-rcnn)."""

_LAYOUT = frozenset({"Concat", "Crop", "Dropout", "Flatten", "Reshape", "Slice", "Split", "Tile"})
"""Types that give values of their bottoms on as they are in the phase TEST."""


@dataclass(frozen=True)
class IndexUse:
    """What a layer takes the values of a data blob for."""

    layer: str
    type: str
    bound: int | None
    """Values are whole numbers from 0 to one below; None: below the number of images."""

    @property
    def of_regions(self) -> bool:
        """Whether each row is a region: the number of an image, x1, y1, x2, y2."""
        return self.type in _OF_REGIONS


def index_uses(net: NetParameter) -> dict[str, list[IndexUse]]:
    """Return the blobs of the TEST net's data layers whose values layers take as whole numbers.

    The indices of Embed and BatchReindex (which Caffe does not check, and reads foreign memory by),
    the selector of Filter, ``cont`` of LSTM, RNN and LSTMUnit, the regions of ROIPooling; also
    where layers that only lay values out anew lie between.
    """
    graph = NetGraph(layers_in_state(net, NetState.of(net, TEST)))
    uses: dict[str, list[IndexUse]] = {}
    for place, layer in enumerate(graph.layers):
        for number, bound in _whole_numbers(layer):
            if number >= len(layer.bottom):
                continue
            for name in _data_blobs(graph, graph.bottoms[place][number]):
                uses.setdefault(name, []).append(IndexUse(layer.name, layer.type, bound))
    return uses


def require_indices(
    data: Mapping[str, NDArray[np.float32]], uses: Mapping[str, Sequence[IndexUse]]
) -> None:
    """Refuse values that a layer would take as indices out of range.

    Caffe checks none of them and reads foreign memory (`embed_layer.cpp` in a release build).

    Raises:
        SurgeryError: There are some.
    """
    for name, values in data.items():
        for use in uses.get(name, ()):
            if use.of_regions:
                _require_regions(name, values, use)
                continue
            bound = len(values) if use.bound is None else use.bound
            if not ((values >= 0) & (values < bound) & (values == np.floor(values))).all():
                raise SurgeryError(
                    f"the data blob '{name}' holds values that layer '{use.layer}' ({use.type}) "
                    f"does not take: whole numbers from 0 to {bound - 1} are needed there"
                )


def _require_regions(name: str, values: NDArray[np.float32], use: IndexUse) -> None:
    rows = values.reshape(len(values), -1)
    is_row = rows.shape[1] == 5
    if is_row:
        number, left, top, right, bottom = rows.T
        whole = (number >= 0) & (number == np.floor(number))
        is_row = bool((whole & (left <= right) & (top <= bottom)).all())
    if not is_row:
        raise SurgeryError(
            f"the data blob '{name}' holds values that layer '{use.layer}' ({use.type}) does not "
            "take: rows of the number of an image, x1, y1, x2, y2 are needed there, x1 <= x2 and "
            "y1 <= y2"
        )


def _whole_numbers(layer: LayerParameter) -> Iterator[tuple[int, int | None]]:
    """Yield the numbers of such bottoms, with the bound of their values."""
    if layer.type == "Embed":
        yield 0, layer.embed_param.input_dim
    elif layer.type == "BatchReindex":
        yield 1, None
    elif layer.type == "Filter":
        yield len(layer.bottom) - 1, 2
    elif layer.type in {"LSTM", "RNN"}:
        yield 1, 2
    elif layer.type == "LSTMUnit":
        yield 2, 2
    elif layer.type in _OF_REGIONS:
        yield 1, None


def _data_blobs(graph: NetGraph, top: Top | None) -> Sequence[str]:
    """The tops of data layers that a blob's values come from unchanged."""
    if top is None:
        return []
    layer = graph.layers[top.layer]
    if not layer.bottom:
        return [layer.top[top.number]]
    if layer.type not in _LAYOUT:
        return []
    first = graph.bottoms[top.layer][:1] if layer.type == "Crop" else graph.bottoms[top.layer]
    return [name for bottom in first for name in _data_blobs(graph, bottom)]
