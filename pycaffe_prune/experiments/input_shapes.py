"""Shapes of the images that an experiment's net reads, which its prototxt need not tell."""

from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.data_shapes import data_shapes
from pycaffe_prune.engines.prepare import resolved_net
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.experiments.stages import Context
from pycaffe_prune.formats.caffe_pb2 import TEST
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import Shape

__all__ = ["input_shapes"]


def input_shapes(context: Context) -> dict[str, Shape]:
    """Return the shapes of what the data layers of the TEST net bring, by blob.

    Raises:
        DataError: A record of an LMDB is damaged, or the data are not there.
        FormatError: The net cannot be read, or asks for files that it may not have read.
    """
    readable = Readable.of(context.net, context.data, context.own, trust=context.trust)
    net, _ = resolved_net(context.read_net(), DataFolder(context.data, readable))
    return data_shapes(layers_in_state(net, NetState.of(net, TEST)))
