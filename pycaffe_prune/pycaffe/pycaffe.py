"""The names of `python/caffe/pycaffe.py`: nets and solvers as scripts use them."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from pycaffe_prune.pycaffe._caffe import (
    NCCL,
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    Net,
    RMSPropSolver,
    SGDSolver,
    Timer,
)

__all__ = [
    "NCCL",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "Net",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
]

# Under the names that scripts that reach for them know.
_Net_forward, _Net_backward = Net.forward, Net.backward
_Net_forward_all, _Net_forward_backward_all = Net.forward_all, Net.forward_backward_all
_Net_set_input_arrays, _Net_batch = Net.set_input_arrays, Net._batch
_Net_blobs, _Net_blob_loss_weights, _Net_layer_dict, _Net_params, _Net_inputs, _Net_outputs = (
    property(vars(Net)[name].func)
    for name in ("blobs", "blob_loss_weights", "layer_dict", "params", "inputs", "outputs")
)


def _Net_get_id_name(  # noqa: N802 (pycaffe's)
    func: Callable[[Net, int], Sequence[int]], field: str
) -> property:
    """Return a property of nets: the names of some of each layer's blobs, by the layer's name.

    Args:
        func: Gives the numbers of these blobs for a net and the number of a layer.
        field: The attribute that keeps what was found.
    """

    def names(net: Net) -> "OrderedDict[str, list[str]]":
        if not hasattr(net, field):
            blobs = net._blob_names
            found = OrderedDict(
                (layer, [blobs[number] for number in func(net, place)])
                for place, layer in enumerate(net._layer_names)
            )
            setattr(net, field, found)
        kept: OrderedDict[str, list[str]] = getattr(net, field)
        return kept

    return property(names)
