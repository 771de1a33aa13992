"""What of a net stock Caffe does not know, for people: types and fields, and whether we do."""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.carried import CarriedField, carried_fields, own_fields
from pycaffe_prune.formats.clashes import stock_types
from pycaffe_prune.net.fork_forms import is_named, is_understood
from pycaffe_prune.net.fork_shapes import is_fork_type

__all__ = ["ForkStatus", "ForkUse", "fork_uses"]

# Data layers of forks: what they make only the data tells, so no setting of theirs is read here.
_SOURCES = frozenset({"AnnotatedData", "VideoData"})


class ForkStatus(StrEnum):
    """What is known here of a layer type or field that stock Caffe does not know."""

    KNOWN = "known"
    """Shapes, counts and units take account of it, or need not."""
    CARRIED = "carried"
    """It is a known fork's, and is kept; nothing here reads it."""
    UNKNOWN = "unknown"
    """Nothing is known of it; it is kept all the same."""


class ForkUse(BaseModel):
    """One layer type or field of a fork in a net."""

    model_config = ConfigDict(frozen=True)

    what: str
    """``type Permute`` or ``field 'permute_param' of Permute``."""
    status: ForkStatus
    layers: tuple[str, ...]
    """The layers that have it; none for a field of the net itself."""


def fork_uses(net: NetParameter, layers: Sequence[LayerParameter]) -> tuple[ForkUse, ...]:
    """Return what stock Caffe does not know of ``layers`` and of ``net`` itself.

    In the order in which it is first met.
    """
    found: dict[tuple[str, ForkStatus], list[str]] = {}
    for field in own_fields(net):
        found[f"field {field}", ForkStatus.UNKNOWN] = []
    for layer in layers:
        if layer.type not in stock_types():
            use = (f"type {layer.type}", _status_of_type(layer.type))
            found.setdefault(use, []).append(layer.name)
        for field in dict.fromkeys(carried_fields(layer)):
            use = (_said(field, layer.type), _status(layer, field))
            found.setdefault(use, []).append(layer.name)
    return tuple(
        ForkUse(what=what, status=status, layers=tuple(dict.fromkeys(names)))
        for (what, status), names in found.items()
    )


def _status_of_type(layer_type: str) -> ForkStatus:
    if layer_type in _SOURCES:
        return ForkStatus.CARRIED
    return ForkStatus.KNOWN if is_fork_type(layer_type) else ForkStatus.UNKNOWN


def _status(layer: LayerParameter, field: CarriedField) -> ForkStatus:
    if is_understood(layer, field):
        return ForkStatus.KNOWN
    return ForkStatus.CARRIED if is_named(layer, field) else ForkStatus.UNKNOWN


def _said(field: CarriedField, layer_type: str) -> str:
    return f"field {field} of {layer_type}"
