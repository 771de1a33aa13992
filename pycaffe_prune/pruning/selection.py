"""Which layers a command works on: by name, by shell pattern or by type, as the user typed it."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.pruning.weight_blobs import weight_blobs

__all__ = ["chooses_all", "connection_layers", "select_layers"]

_ALL = "all"
_NO_REASONS: Mapping[str, str] = MappingProxyType({})


def select_layers(
    candidates: Sequence[tuple[str, str]],
    text: str | None,
    left_out: Mapping[str, str] = _NO_REASONS,
) -> list[str]:
    """Return the candidates' names that ``text`` chooses, in the candidates' order.

    Args:
        candidates: Name and type of each layer that can be chosen; at least one.
        text: Comma-separated, each a layer's name, a shell pattern of names (``conv*``), a layer
            type (``Convolution``) or ``all``; where a layer is called so, its name comes first.
            None: all of them.
        left_out: Layers that are no candidates, each with the reason: the end of a sentence that
            begins with the layer.

    Raises:
        SurgeryError: There is no candidate, or a part of ``text`` chooses none; the sentence lists
            those that there are.
    """
    if not candidates:
        reasons = "; ".join(f"layer '{name}' {reason}" for name, reason in left_out.items())
        because = f": {reasons}" if reasons else ""
        raise SurgeryError(f"the net has no layer that can be pruned so{because}")
    parts = [_ALL] if text is None else [part.strip() for part in text.split(",")]
    chosen = {name for part in parts for name in _matching(candidates, part, left_out)}
    return [name for name in dict.fromkeys(name for name, _ in candidates) if name in chosen]


def chooses_all(text: str) -> bool:
    """Tell whether ``text``, as for `select_layers`, asks for all layers."""
    return _ALL in [part.strip() for part in text.split(",")]


def _matching(
    candidates: Sequence[tuple[str, str]], part: str, left_out: Mapping[str, str]
) -> set[str]:
    names = {name for name, _ in candidates}
    if part in names:
        return {part}
    found = {
        name
        for name, layer_type in candidates
        if part in (layer_type, _ALL) or fnmatchcase(name, part)
    }
    if not found:
        listed = ", ".join(f"{name} ({layer_type})" for name, layer_type in candidates)
        because = f": it {left_out[part]}" if part in left_out else ""
        raise SurgeryError(
            f"no layer '{part}' can be pruned so{because}; the layers that can: {listed}"
        )
    return found


def connection_layers(net: NetParameter, model: Caffemodel) -> list[tuple[str, str]]:
    """Return name and type of the net's layers whose connections can be pruned, in its order.

    Those are the layers of which the model holds matrices of weights (`weight_blobs`). Types are
    the net's: weights read from some formats have none.
    """
    held = {layer.name: layer.blobs for layer in model.layers if layer.blobs}
    types = {layer.name: layer.type for layer in net.layer}
    return [(name, kind) for name, kind in types.items() if weight_blobs(kind, held.get(name, ()))]
