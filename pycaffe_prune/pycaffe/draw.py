"""Nets as pictures: layers and blobs as nodes, by pydot and Graphviz where these are installed.

As BVLC's ``python/caffe/draw.py`` draws them; its constants may be changed by scripts.
"""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from pycaffe_prune.errors import PruneError
from pycaffe_prune.pycaffe.proto import caffe_pb2

__all__ = [
    "BLOB_STYLE",
    "LAYER_STYLE_DEFAULT",
    "NEURON_LAYER_STYLE",
    "DrawingError",
    "choose_color_by_layertype",
    "draw_net",
    "draw_net_to_file",
    "get_edge_label",
    "get_layer_label",
    "get_layer_lr_mult",
    "get_pooling_types_dict",
    "get_pydot_graph",
]

LAYER_STYLE_DEFAULT = {"shape": "record", "fillcolor": "#6495ED", "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "record", "fillcolor": "#90EE90", "style": "filled"}
BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}

_COLORS = {
    "Convolution": "#FF5050",
    "Deconvolution": "#FF5050",
    "Pooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}
_LEARNING = ("Convolution", "Deconvolution", "InnerProduct")
_NO_LABEL = '""'


class DrawingError(PruneError, ValueError):
    """A net cannot be drawn as asked, or what draws it is not installed."""


def get_pooling_types_dict() -> dict[int, str]:
    """Return the names of the ways of pooling by their numbers."""
    return {number: name for name, number in caffe_pb2.PoolingParameter.PoolMethod.items()}


def get_edge_label(layer: caffe_pb2.LayerParameter) -> str:
    """Return what is written at a layer's tops: the outputs or the size of a batch."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return _NO_LABEL


def get_layer_lr_mult(layer: caffe_pb2.LayerParameter) -> tuple[float, float]:
    """Return the multipliers of the learning rate, of a layer's weights and of its biases.

    Raises:
        DrawingError: The layer learns nothing, or has more than two of them.
    """
    if layer.type not in _LEARNING:
        raise DrawingError(f"{layer.type} layers do not have a learning rate multiplier")
    if len(layer.param) > 2:
        raise DrawingError(
            f"layer {layer.name} has {len(layer.param)} param: two at most are drawn"
        )
    weights, biases = [*(param.lr_mult for param in layer.param), 1.0, 1.0][:2]
    return weights, biases


def get_layer_label(
    layer: caffe_pb2.LayerParameter, rankdir: str, display_lrm: bool = False
) -> str:
    """Return what is written in a layer's node, quoted for Graphviz: its name, type and sizes.

    Args:
        layer: The layer.
        rankdir: The direction of the picture: where it runs up or down, a line is wide.
        display_lrm: Whether the multipliers of the learning rate are told.
    """
    separator = " " if rankdir in ("TB", "BT") else r"\n"
    kind = layer.type
    if layer.type == "Pooling":
        kind += f" {get_pooling_types_dict()[layer.pooling_param.pool]}"
    lines = [layer.name, f"({kind})"]
    sizes = _kernel_stride_pad(layer)
    if sizes is not None:
        names = ("kernel size", "stride", "pad")
        lines += [f"{name}: {size}" for name, size in zip(names, sizes, strict=True)]
    if display_lrm and layer.type in _LEARNING:
        weights, biases = get_layer_lr_mult(layer)
        if weights or biases:
            lines.append(f"lr mult: {weights:.1f}, {biases:.1f}")
    return f'"{separator.join(lines)}"'


def _kernel_stride_pad(layer: caffe_pb2.LayerParameter) -> tuple[int, int, int] | None:
    if layer.type == "Pooling":
        pooling = layer.pooling_param
        return pooling.kernel_size, pooling.stride, pooling.pad
    if layer.type in ("Convolution", "Deconvolution"):
        param = layer.convolution_param
        lists = (param.kernel_size, 1), (param.stride, 1), (param.pad, 0)
        kernel, stride, pad = (given[0] if given else usual for given, usual in lists)
        return kernel, stride, pad
    return None


def choose_color_by_layertype(layertype: str) -> str:
    """Return the color of a layer's node."""
    return _COLORS.get(layertype, "#6495ED")


def get_pydot_graph(
    caffe_net: caffe_pb2.NetParameter,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> Any:
    """Return a net as pydot's graph.

    Args:
        caffe_net: The net.
        rankdir: The direction of the picture: ``LR``, ``TB`` or ``BT``.
        label_edges: Whether outputs are written at layers' tops.
        phase: ``caffe.TRAIN`` or ``caffe.TEST`` for the layers of that phase, None for all.
        display_lrm: Whether the multipliers of the learning rate are told.

    Raises:
        DrawingError: pydot is not installed, or a layer has both include and exclude.
    """
    pydot = _pydot()
    graph = pydot.Dot(caffe_net.name or "Net", graph_type="digraph", rankdir=rankdir)
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str, str]] = []
    for layer in caffe_net.layer:
        if phase is not None and not _is_in(layer, phase):
            continue
        node = f"{layer.name}_{layer.type}"
        label = get_layer_label(layer, rankdir, display_lrm=display_lrm)
        nodes[node] = pydot.Node(label, **_style(layer))
        for bottom in layer.bottom:
            nodes[f"{bottom}_blob"] = pydot.Node(bottom, **BLOB_STYLE)
            edges.append((f"{bottom}_blob", node, _NO_LABEL))
        for top in layer.top:
            nodes[f"{top}_blob"] = pydot.Node(top)
            edges.append((node, f"{top}_blob", get_edge_label(layer) if label_edges else _NO_LABEL))
    for drawn in nodes.values():
        graph.add_node(drawn)
    for source, target, label in edges:
        graph.add_edge(pydot.Edge(nodes[source], nodes[target], label=label))
    return graph


def _pydot() -> ModuleType:
    for name in ("pydotplus", "pydot"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise DrawingError("pydot draws nets, and is not installed: `pip install pydot` and Graphviz")


def _is_in(layer: caffe_pb2.LayerParameter, phase: int) -> bool:
    if layer.include and layer.exclude:
        raise DrawingError(f"layer {layer.name} has both include and exclude specified")
    if layer.include:
        return any(rule.phase == phase for rule in layer.include)
    return all(rule.phase != phase for rule in layer.exclude)


def _style(layer: caffe_pb2.LayerParameter) -> dict[str, str]:
    in_place = len(layer.bottom) == len(layer.top) == 1 and layer.bottom[0] == layer.top[0]
    if in_place:
        return NEURON_LAYER_STYLE
    return LAYER_STYLE_DEFAULT | {"fillcolor": choose_color_by_layertype(layer.type)}


def draw_net(
    caffe_net: caffe_pb2.NetParameter,
    rankdir: str,
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """Return a picture of a net in the format that ``ext`` names, such as ``png`` or ``svg``.

    Raises:
        DrawingError: As `get_pydot_graph`; or Graphviz is not installed, or knows no such format.
    """
    graph = get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm)
    try:
        picture: bytes = graph.create(format=ext)
    except FileNotFoundError as error:
        raise DrawingError(
            "Graphviz's program dot draws nets, and is not installed: `apt install graphviz`"
        ) from error
    except (OSError, AssertionError) as error:
        raise DrawingError(f"Graphviz's dot drew no {ext}: {error}") from error
    return picture


def draw_net_to_file(
    caffe_net: caffe_pb2.NetParameter,
    filename: str | Path,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Draw a net into a file, in the format that the file's ending names.

    Raises:
        DrawingError: As `draw_net`; nothing is written then.
    """
    ext = Path(filename).suffix.removeprefix(".")
    picture = draw_net(caffe_net, rankdir, ext, phase, display_lrm)
    Path(filename).write_bytes(picture)
