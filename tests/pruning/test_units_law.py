"""Deleting units is the same as zeroing their outgoing weights, for whatever net they are in."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, Layer
from pycaffe_prune.pruning.units import delete_units, mask_units, prunable_layers

Keep = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Case:
    """A net, its weights, what is kept of each prunable layer, and the outputs by phase."""

    net: NetParameter
    model: Caffemodel
    keep: Keep
    readers: Mapping[str, list[str]]
    """Per InnerProduct layer, those that read its units."""
    outputs: Mapping[int, list[str]]
    batch: NDArray[np.float64]


ACTIVATIONS = {
    "none": [],
    "ReLU in place": [("ReLU", True)],
    "ReLU": [("ReLU", False)],
    "leaky ReLU in place": [("leaky", True)],
    "Sigmoid": [("Sigmoid", False)],
    "ReLU, Dropout in place": [("ReLU", True), ("Dropout", True)],
    "Dropout, ReLU": [("Dropout", False), ("ReLU", False)],
}


class _Builder:
    def __init__(self, draw: st.DrawFn, width: int) -> None:
        self._draw = draw
        self._random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.net = NetParameter()
        text_format.Parse(
            f'layer {{ name: "in" type: "Input" top: "in" '
            f"input_param {{ shape {{ dim: 3 dim: {width} }} }} }}",
            self.net,
        )
        self.layers: list[Layer] = []
        self.makers: dict[str, str] = {}
        self.readers: dict[str, list[str]] = {}

    def layer(self, kind: str, bottom: str, top: str, phase: int | None = None) -> LayerParameter:
        layer = self.net.layer.add(name=f"{kind} {len(self.net.layer)}", type=kind)
        layer.bottom.append(bottom)
        layer.top.append(top)
        if phase is not None:
            layer.include.add(phase=phase)
        return layer

    def activation(self, kind: str, bottom: str, in_place: bool, phase: int | None) -> str:
        top = bottom if in_place else f"{bottom}'"
        layer = self.layer("ReLU" if kind == "leaky" else kind, bottom, top, phase)
        self.makers[top] = self.makers[bottom]
        if kind == "leaky":
            layer.relu_param.negative_slope = 0.5
        return top

    def inner_product(
        self, bottom: str, inputs: int, outputs: int, phase: int | None = None
    ) -> str:
        top = f"blob {len(self.net.layer)}"
        layer = self.layer("InnerProduct", bottom, top, phase)
        self.makers[top] = layer.name
        if bottom in self.makers:
            self.readers.setdefault(self.makers[bottom], []).append(layer.name)
        param = layer.inner_product_param
        param.num_output = outputs
        param.transpose = self._draw(st.booleans())
        param.bias_term = self._draw(st.booleans())
        shape = (inputs, outputs) if param.transpose else (outputs, inputs)
        shapes = [shape, (outputs,)] if param.bias_term else [shape]
        blobs = tuple(self._random.normal(size=shape).astype(np.float32) for shape in shapes)
        definition = LayerParameter()
        definition.CopyFrom(layer)
        self.layers.append(Layer(definition, blobs))
        return top


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Chains of one to three hidden layers; any blob may have further readers, in one phase only.

    A further reader stands before or after the in-place layers of its blob, and so reads the values
    before or after them.
    """
    widths = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    net = _Builder(draw, widths[0])
    outputs: dict[int, list[str]] = {TRAIN: [], TEST: []}
    phases = st.sampled_from([None, TRAIN, TEST])

    def branch(blob: str, width: int) -> None:
        for phase in draw(st.lists(phases, max_size=2)):
            top = net.inner_product(blob, width, draw(st.integers(1, 3)), phase)
            for each in (TRAIN, TEST) if phase is None else (phase,):
                outputs[each].append(top)

    blob = "in"
    for before, width in pairwise(widths):
        blob = net.inner_product(blob, before, width)
        branch(blob, width)
        for kind, in_place in ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))]:
            phase = draw(phases) if in_place else None
            blob = net.activation(kind, blob, in_place, phase)
        branch(blob, width)
    last = net.inner_product(blob, widths[-1], draw(st.integers(1, 4)))
    for phase in (TRAIN, TEST):
        outputs[phase].append(last)
    keep = {}
    for name in draw(st.permutations(prunable_layers(net.net))):  # the order must not matter
        units = next(layer for layer in net.net.layer if layer.name == name)
        size = units.inner_product_param.num_output
        flags = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
        keep[name] = np.array(flags, np.bool_)
    batch = np.random.default_rng(0).normal(size=(3, widths[0]))
    return Case(net.net, Caffemodel(tuple(net.layers)), keep, net.readers, outputs, batch)


def forward(
    net: NetParameter, model: Caffemodel, batch: NDArray[np.float64], phase: int
) -> dict[str, NDArray[np.float64]]:
    """Caffe's forward in NumPy; Dropout does in both phases what it does in TEST: nothing."""
    blobs = {"in": batch}
    for layer in net.layer[1:]:
        if layer.include and layer.include[0].phase != phase:
            continue
        x = blobs[layer.bottom[0]]
        if layer.type == "InnerProduct":
            weights, *bias = model.layer(layer.name).blobs
            matrix = weights.T if layer.inner_product_param.transpose else weights
            assert matrix.shape == (layer.inner_product_param.num_output, x.shape[1])
            y = x @ matrix.T.astype(np.float64) + sum(bias)
        elif layer.type == "ReLU":
            y = np.where(x > 0, x, layer.relu_param.negative_slope * x)
        elif layer.type == "Sigmoid":
            y = 1 / (1 + np.exp(-x))
        else:
            assert layer.type == "Dropout"
            y = x
        blobs[layer.top[0]] = y
    return blobs


def without_outgoing(case: Case) -> Caffemodel:
    """The same net with zeros in all weights that lead out of the units that go."""
    changed: dict[BlobKey, Blob] = {}
    transpose = {layer.name: layer.inner_product_param.transpose for layer in case.net.layer}
    for name, keep in case.keep.items():
        for reader in case.readers[name]:
            blob = changed.get((reader, 0), case.model.layer(reader).blobs[0]).copy()
            (blob if transpose[reader] else blob.T)[~keep] = 0
            changed[reader, 0] = blob
    return case.model.with_blobs(changed)


@given(cases())
def test_deleting_units_is_zeroing_what_leads_out_of_them(case: Case) -> None:
    small_net, small = delete_units(case.net, case.model, case.keep)
    masked = without_outgoing(case)
    ours = mask_units(case.net, case.model, case.keep)
    for (_, wanted), (_, found) in zip(masked.blobs(), ours.blobs(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for phase, outputs in case.outputs.items():
        full = forward(case.net, masked, case.batch, phase)
        cut = forward(small_net, small, case.batch, phase)
        for output in outputs:
            np.testing.assert_allclose(cut[output], full[output], rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(cases())
def test_every_hidden_layer_can_be_pruned_and_no_output_layer(case: Case) -> None:
    ends = {top for tops in case.outputs.values() for top in tops}
    inner = [layer for layer in case.net.layer if layer.type == "InnerProduct"]
    assert prunable_layers(case.net) == [layer.name for layer in inner if layer.top[0] not in ends]


@settings(max_examples=50)
@given(cases())
def test_definitions_and_weights_shrink_together_and_the_arguments_not_at_all(case: Case) -> None:
    text = case.net.SerializeToString(deterministic=True)
    copies = [(layer.param.SerializeToString(), layer.blobs) for layer in case.model.layers]
    values = [blob.copy() for _, blob in case.model.blobs()]
    small_net, small = delete_units(case.net, case.model, case.keep)

    for layer, definition in zip(case.net.layer, small_net.layer, strict=True):
        wanted = LayerParameter()
        wanted.CopyFrom(layer)
        if layer.name in case.keep:
            wanted.inner_product_param.num_output = int(case.keep[layer.name].sum())
        assert definition == wanted  # nothing but num_output has changed
    definitions = {layer.name: layer for layer in small_net.layer}
    for one in small.layers:
        units = definitions[one.name].inner_product_param.num_output
        assert one.param.inner_product_param.num_output == units
        transposed = definitions[one.name].inner_product_param.transpose
        assert one.blobs[0].shape[1 if transposed else 0] == units
        assert all(blob.shape == (units,) and blob.dtype == np.float32 for blob in one.blobs[1:])

    assert case.net.SerializeToString(deterministic=True) == text
    for one, (param, blobs) in zip(case.model.layers, copies, strict=True):
        assert one.param.SerializeToString() == param
        assert one.blobs is blobs
    for (_, blob), value in zip(case.model.blobs(), values, strict=True):
        np.testing.assert_array_equal(blob, value)


@settings(max_examples=30)
@given(cases())
def test_keeping_all_units_changes_nothing(case: Case) -> None:
    everything = {name: np.ones_like(keep) for name, keep in case.keep.items()}
    same_net, same = delete_units(case.net, case.model, everything)
    assert same_net == case.net
    for (_, before), (_, after) in zip(case.model.blobs(), same.blobs(), strict=True):
        np.testing.assert_array_equal(before, after)
