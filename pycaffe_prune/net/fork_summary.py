"""What of a net stock Caffe does not know, for people: types and fields, and whether we do."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.carried import CarriedField, carried_fields, own_fields
from pycaffe_prune.net.fork_forms import open_fields
from pycaffe_prune.net.fork_shapes import is_fork_type

__all__ = ["ForkUse", "fork_uses"]


class ForkUse(BaseModel):
    """One layer type or field of a fork in a net."""

    model_config = ConfigDict(frozen=True)

    what: str
    """``type Permute`` or ``field 'permute_param' of Permute``."""
    understood: bool
    """Whether shapes, counts and units take account of it; else it is carried and that is all."""
    layers: tuple[str, ...]
    """The layers that have it; none for a field of the net itself."""


def fork_uses(net: NetParameter, layers: Sequence[LayerParameter]) -> tuple[ForkUse, ...]:
    """Return what stock Caffe does not know of ``layers`` and of ``net`` itself.

    In the order in which it is first met; types that no rule is known for are not told from stock
    Caffe's own here, their shapes are unknown.
    """
    found: dict[tuple[str, bool], list[str]] = {}
    for field in own_fields(net):
        found[f"field {field}", False] = []
    for layer in layers:
        if is_fork_type(layer.type):
            found.setdefault((f"type {layer.type}", True), []).append(layer.name)
        unknown = open_fields(layer)
        for field in dict.fromkeys(carried_fields(layer)):
            use = (_said(field, layer.type), field not in unknown)
            found.setdefault(use, []).append(layer.name)
    return tuple(
        ForkUse(what=what, understood=understood, layers=tuple(dict.fromkeys(names)))
        for (what, understood), names in found.items()
    )


def _said(field: CarriedField, layer_type: str) -> str:
    return f"field {field} of {layer_type}"
