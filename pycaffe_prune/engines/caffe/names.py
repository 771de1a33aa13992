"""Names that pycaffe gives to Python as text: it can do so with UTF-8 only."""

from pathlib import Path

from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.formats.text_bytes import bytes_of

__all__ = ["require_names_for_pycaffe"]


def require_names_for_pycaffe(net: Path) -> None:
    """Refuse a net in which a layer or a blob has a name that is not UTF-8.

    Caffe itself takes any bytes; ``Net.blobs`` and ``Net.params`` of `python/caffe/pycaffe.py` end
    in a UnicodeDecodeError.

    Raises:
        EngineError: There is one; the sentence names the layer.
    """
    try:
        net.read_bytes().decode()
    except UnicodeDecodeError:
        for layer in read_net(net).layer:
            for name in (layer.name, *layer.top):
                if bytes_of(name) != name.encode():
                    what = "its name" if name == layer.name else f"the name of its blob '{name}'"
                    raise EngineError(
                        f"layer '{layer.name}' ({layer.type}): {what} is not UTF-8, and pycaffe "
                        "reads no such names; rename it in net and weights, or use --engine torch"
                    ) from None
