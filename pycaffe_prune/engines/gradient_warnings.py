"""Said at the start of a training: layers whose gradient the real Caffe gets wrong."""

from collections.abc import Iterator

from pycaffe_prune.engines.base import Event
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.in_place import WrongGradient, wrong_gradients

__all__ = ["gradient_warning", "gradient_warnings"]


def gradient_warnings(net: NetParameter) -> Iterator[Event]:
    """Yield one warning if there is such a layer in the TRAIN net."""
    told = gradient_warning(net)
    if told is not None:
        yield Event(event="warning", message=told)


def gradient_warning(net: NetParameter) -> str | None:
    """Return a sentence with the layers and the remedy (`net.in_place`); None: there is none."""
    found = wrong_gradients(net)
    if not found:
        return None
    own = ", ".join(dict.fromkeys(f"'{one.by}'" for one in found))
    return (
        "the real Caffe computes a wrong gradient, and the engine torch the right one, at "
        f"{', '.join(map(_told, found))}; give a top of its own to {own}"
    )


def _told(one: WrongGradient) -> str:
    how = "works in place" if one.by == one.layer else f"'{one.by}' writes over it in place"
    return f"layer '{one.layer}' ({one.type}: {how})"
