"""Shape inference: the shape of every blob and parameter of a net, as Caffe computes it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.blobs import MAX_COUNT
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.fork_forms import open_fields
from pycaffe_prune.net.fork_shapes import shape_rule
from pycaffe_prune.net.setup_checks import refuse_unbuildable
from pycaffe_prune.net.shape_rules import RULES, Inferred, Rule

__all__ = ["LayerShapes", "Shape", "extents", "infer_shapes"]

_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})

# The second top of these holds one label per image.
_LABELLED = frozenset({"Data", "ImageData", "MemoryData", "WindowData"})


@dataclass(frozen=True)
class LayerShapes:
    """The shapes around one layer; None = not known."""

    bottoms: tuple[Shape | None, ...]
    tops: tuple[Shape | None, ...]
    params: tuple[Shape, ...]
    """In Caffe's order of blobs (weight, bias); empty too when there is a ``problem``."""
    problem: str | None
    """Why something is not known, as a sentence that names the layer."""


def infer_shapes(
    layers: Sequence[LayerParameter], inputs: Mapping[str, Shape] = _NO_INPUTS
) -> list[LayerShapes]:
    """Infer the shapes of all blobs and parameters, as each layer of `src/caffe/layers` reshapes.

    A layer of an unknown type, or one that reads a blob of unknown shape, has tops of unknown shape
    and a ``problem``.

    Args:
        layers: The layers of one state of the net, in the V2 form (`net.graph.layers_in_state`).
        inputs: Shapes of tops of layers without bottoms, by blob name: those that the prototxt does
            not tell (a Data layer's), or other ones than it tells (another batch size). The labels
            of a Data layer follow its images.

    Returns:
        One entry per layer, in their order.

    Raises:
        SurgeryError: A layer contradicts itself or the shape that it reads: a kernel that does not
            fit, a ``group`` that does not divide, bottoms of an Eltwise that differ, ...
    """
    latest: dict[str, Shape | None] = dict(inputs)
    found = []
    for layer in layers:
        bottoms = tuple(latest.get(name) for name in layer.bottom)
        shapes = _around(layer, bottoms, inputs)
        latest.update(zip(layer.top, shapes.tops, strict=True))
        found.append(shapes)
    return found


def _around(
    layer: LayerParameter, bottoms: tuple[Shape | None, ...], inputs: Mapping[str, Shape]
) -> LayerShapes:
    tops: tuple[Shape | None, ...] = (None,) * len(layer.top)
    params: tuple[Shape, ...] = ()
    problem = None
    rule = shape_rule(layer)
    known = tuple(shape for shape in bottoms if shape is not None)
    if rule is None:
        problem = f"layer '{layer.name}' is of type '{layer.type}', whose shapes are not known"
    elif carried := open_fields(layer):
        problem = (
            f"layer '{layer.name}' ({layer.type}) has the field {carried[0]}, which stock Caffe "
            "does not know, so its shapes are not known"
        )
    elif len(known) < len(bottoms):
        name = layer.bottom[bottoms.index(None)]
        problem = (
            f"layer '{layer.name}' ({layer.type}) reads the blob '{name}', whose shape is not known"
        )
    else:
        inferred = _inferred(layer, rule, known)
        tops, params = tuple(inferred.tops[: len(layer.top)]), inferred.params
    if not bottoms:
        tops = _with_given(layer, tops, inputs)
        problem = None
        if None in tops:
            name = layer.top[tops.index(None)]
            problem = (
                f"the prototxt does not tell the shape of the blob '{name}' of layer "
                f"'{layer.name}' ({layer.type}); give it as {name}=NxCxHxW"
            )
    return LayerShapes(bottoms, tops, params, problem)


def _with_given(
    layer: LayerParameter, tops: tuple[Shape | None, ...], inputs: Mapping[str, Shape]
) -> tuple[Shape | None, ...]:
    given = [inputs.get(name) for name in layer.top]
    images = given[0] if given else None
    if layer.type in _LABELLED and images and given[1:] == [None]:
        given[1] = images[:1]
    return tuple(top if shape is None else shape for shape, top in zip(given, tops, strict=True))


def _inferred(layer: LayerParameter, rule: Rule, bottoms: Sequence[Shape]) -> Inferred:
    try:
        _require_bottoms(rule, len(bottoms))
        inferred = rule.infer(layer, bottoms)
        _require_tops(inferred, len(layer.top))
        if rule is RULES.get(layer.type):  # a fork's layer takes what its fork takes
            refuse_unbuildable(layer, bottoms, len(inferred.tops), len(inferred.params))
        for shape in (*inferred.tops, *inferred.params):
            if shape is not None:
                _require_possible(shape)
    except SurgeryError as error:
        raise SurgeryError(f"layer '{layer.name}' ({layer.type}): {error}") from None
    return inferred


def _require_bottoms(rule: Rule, count: int) -> None:
    if rule.most is None:
        wanted, fits = f"at least {rule.least}", rule.least <= count
    else:
        wanted, fits = f"{rule.least} to {rule.most}", rule.least <= count <= rule.most
    if not fits:
        raise SurgeryError(f"has {count} bottoms; its type takes {wanted}")


def _require_tops(inferred: Inferred, count: int) -> None:
    if count > len(inferred.tops):
        raise SurgeryError(f"has {count} tops; it makes {len(inferred.tops)}")


def _require_possible(shape: Shape) -> None:
    """Refuse what `Blob::Reshape` of `src/caffe/blob.cpp` refuses."""
    if any(extent < 0 for extent in shape):
        raise SurgeryError(f"a blob cannot have shape {extents(shape)}")
    if math.prod(filter(None, shape)) > MAX_COUNT:
        raise SurgeryError(f"a blob of shape {extents(shape)} is too large for Caffe")
