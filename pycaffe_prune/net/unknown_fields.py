"""What a user should know of fields that stock Caffe does not know: misspelt, or a fork's."""

from collections.abc import Iterator
from pathlib import Path

from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.carried import CarriedField, carried_fields, own_fields
from pycaffe_prune.formats.field_lines import lines_of_unknown
from pycaffe_prune.net.fork_forms import is_understood

__all__ = ["unknown_fields"]

_MOST = 5


def unknown_fields(net: NetParameter, source: Path) -> list[str]:
    """Return a sentence for each kind of field that is carried without its meaning.

    Each begins with file and line, and names the layer, the field, and the stock field or value of
    a similar name. More than five kinds are counted.

    Args:
        net: A net, with all its layers.
        source: The prototxt that it was read from.
    """
    places: dict[str, list[str]] = {}
    lines = lines_of_unknown(source, net)
    for field, kind, layer in _fields(net):
        line = lines[field.text].pop(0) if lines.get(field.text) else None
        if not kind:
            continue
        where = str(source) if line is None else f"{source}:{line}"
        places.setdefault(f"{field}{kind}", []).append(f"{where}: {layer}the field")
    told = [
        f"{found[0]} {what}, which stock Caffe does not know, is carried without its meaning"
        + (f"; so in {len(found) - 1} more layers" if len(found) > 1 else "")
        for what, found in places.items()
    ]
    more = len(told) - _MOST
    return [*told[:_MOST], *([f"{source}: {more} more such fields"] if more > 0 else [])]


def _fields(net: NetParameter) -> Iterator[tuple[CarriedField, str, str]]:
    """Every carried field, what it is a field of ("": understood), and the layer."""
    for layer in net.layer:
        for field in carried_fields(layer):
            kind = "" if is_understood(layer, field) else f" of {layer.type}"
            yield field, kind, f"layer '{layer.name}': "
    for field in own_fields(net):
        yield field, " of the net", ""
