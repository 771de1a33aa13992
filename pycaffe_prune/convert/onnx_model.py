"""A deploy net and its weights as an ONNX model."""

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, helper

from pycaffe_prune import __version__
from pycaffe_prune.convert.onnx_graph import Context, OnnxGraph
from pycaffe_prune.convert.onnx_layers import RULES
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.blobs import Blob
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.formats.field_table import refuse_unhonoured
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.graph import NetGraph, NetState, Top, layers_in_state
from pycaffe_prune.net.setup_checks import refuse_repeated_tops
from pycaffe_prune.net.shapes import LayerShapes, Shape, infer_shapes
from pycaffe_prune.pruning.counts import require_finite

__all__ = ["to_onnx"]

_OPSET = 17
_IR_VERSION = 8
_BATCH = "N"
_PASSING = frozenset({"Dropout", "Split"})


def to_onnx(net: NetParameter, model: Caffemodel) -> onnx.ModelProto:
    """Return a deploy net as an ONNX model that computes the same (opset 17, float32).

    Its inputs are the tops of the Input layers, its outputs the tops that nothing reads, under
    their blobs' names; the first axis of both is free, so that any batch can be given, unless a
    layer is made for one batch (a Slice along that axis, say). Windows, borders and roundings are
    those of the sources in `src/caffe/layers`.

    Args:
        net: A net in the V2 form whose data comes in by Input layers.
        model: Its weights.

    Raises:
        FormatError: A layer has a field that no ONNX model follows.
        SurgeryError: A layer has no ONNX form here, net and weights do not belong together, or
            weights are not finite; the sentence names the layer.
    """
    layers = layers_in_state(net, NetState.of(net, TEST))
    _require_known(layers)
    refuse_repeated_tops(layers)
    for layer in layers:
        refuse_unhonoured(layer, "onnx")
    require_fitting(net, model)
    require_finite(model, {layer.name for layer in model.layers} & {layer.name for layer in layers})
    shapes = infer_shapes(layers)
    for around in shapes:
        if around.problem is not None:
            raise SurgeryError(f"{around.problem}; ONNX needs to know all shapes")
    built = OnnxGraph()
    graph = NetGraph(layers)
    names = _names(graph, built)
    blobs = _blobs(layers, shapes, model)
    values: dict[Top, str] = {}
    for place, (layer, around) in enumerate(zip(layers, shapes, strict=True)):
        sources = tuple(values[top] for top in graph.bottoms[place] if top is not None)
        tops = [Top(place, index) for index in range(len(layer.top))]
        targets = tuple(names[top] for top in tops)
        if layer.type in _PASSING:
            _pass_on(built, sources[0], [names[top] for top in tops if not graph.readers(top)])
            targets = sources * len(tops)
        elif layer.type == "Parameter":
            built.node(
                "Identity", [built.constant(f"{layer.name}/0", blobs[layer.name][0])], targets
            )
        elif layer.type != "Input":
            RULES[layer.type](Context(built, layer, around, sources, targets, blobs[layer.name]))
        values.update(zip(tops, targets, strict=True))
    ends = _ends(graph, names, shapes)
    return _model(net.name, built, *ends)


def _pass_on(built: OnnxGraph, value: str, outputs: Sequence[str]) -> None:
    """A layer that changes nothing needs a node only where it makes an output of the net."""
    for output in outputs:
        built.node("Identity", [value], [output])


def _ends(
    graph: NetGraph, names: Mapping[Top, str], shapes: Sequence[LayerShapes]
) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """The model's inputs and outputs."""
    inputs, outputs = {}, {}
    for top in graph.tops():
        place, index = top
        shape = shapes[place].tops[index] or ()
        if graph.layers[place].type == "Input":
            inputs[names[top]] = shape
        elif not graph.readers(top):
            outputs[names[top]] = shape
    batches = {shape[:1] for shape in inputs.values()}
    fixed = any(
        _fixes_batch(layer, around.bottoms)
        for layer, around in zip(graph.layers, shapes, strict=True)
    )
    batch = batches.pop() if len(batches) == 1 and not fixed else None
    return _infos(inputs, batch), _infos(outputs, batch)


def _require_known(layers: Sequence[LayerParameter]) -> None:
    known = {*RULES, *_PASSING, "Input", "Parameter"}
    for layer in layers:
        if layer.type in known:
            continue
        remedy = (
            "make a deploy net of it first (--to deploy)"
            if not layer.bottom or layer.type.endswith("Loss") or layer.type == "Accuracy"
            else f"the types that have one: {', '.join(sorted(known))}"
        )
        raise SurgeryError(
            f"layer '{layer.name}' is of type {layer.type}, which has no ONNX form here; {remedy}"
        )


def _blobs(
    layers: Sequence[LayerParameter], shapes: Sequence[LayerShapes], model: Caffemodel
) -> dict[str, tuple[Blob, ...]]:
    """Every layer's blobs in its shapes; one that a file holds at its owner only is found there.

    With ``share_mode: PERMISSIVE`` the owner's may have another shape of as many values.
    """
    held = {layer.name: layer.blobs for layer in model.layers}
    owned: dict[str, Blob] = {}
    found = {}
    for layer, around in zip(layers, shapes, strict=True):
        blobs = list(held.get(layer.name, ()))
        for index, param in enumerate(layer.param):
            if not param.name or index >= len(around.params):
                continue
            if param.name in owned:
                blobs[index : index + 1] = [owned[param.name].reshape(around.params[index])]
            elif index < len(blobs):
                owned[param.name] = blobs[index]
        found[layer.name] = tuple(blobs)
    return found


def _names(graph: NetGraph, built: OnnxGraph) -> dict[Top, str]:
    """A name for each top: the blob's for its last version, the layer's too for earlier ones."""
    blobs = {Top(place, index): graph.layers[place].top[index] for place, index in graph.tops()}
    last = {blob: top for top, blob in blobs.items()}
    names = {top: built.unique(blob) for blob, top in last.items()}
    for top, blob in blobs.items():
        if top not in names:
            names[top] = built.unique(f"{blob}:{graph.layers[top.layer].name}")
    return names


def _fixes_batch(layer: LayerParameter, bottoms: Sequence[Shape | None]) -> bool:
    """Whether a layer is made for one extent of the first axis."""
    if layer.type == "Slice":
        cut = layer.slice_param
        axis = cut.slice_dim if cut.HasField("slice_dim") else cut.axis
    elif layer.type == "InnerProduct":
        axis = layer.inner_product_param.axis
    elif layer.type == "Crop":
        axis = layer.crop_param.axis
    elif layer.type in ("Scale", "Bias") and len(bottoms) == 1:
        settings = layer.scale_param if layer.type == "Scale" else layer.bias_param
        axis = settings.axis if settings.num_axes else 1
    elif layer.type == "Reshape":
        told = layer.reshape_param
        return told.axis == 0 and bool(told.shape.dim) and told.shape.dim[0] > 0
    else:
        return False
    return axis in (0, -len(bottoms[0] or ()))


def _infos(shapes: Mapping[str, Shape], batch: Shape | None) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, _extents(shape, batch))
        for name, shape in shapes.items()
    ]


def _extents(shape: Shape, batch: Shape | None) -> list[int | str | None]:
    """The extents; the batch is free, and so is a first axis that depends on it."""
    if batch is None or not shape:
        return list(shape)
    return [_BATCH if shape[:1] == batch else None, *shape[1:]]


def _model(
    name: str,
    built: OnnxGraph,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        built.nodes, name or "net", inputs, outputs, list(built.constants.values())
    )
    model = helper.make_model(
        graph,
        producer_name="pycaffe-prune",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    model.ir_version = _IR_VERSION
    return model
