"""Which nets are one chain of InnerProducts: those that many runs of are stacked by hand."""

from collections.abc import Sequence

from pycaffe_prune.engines.job import Job
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.formats.caffe_pb2 import TRAIN, LayerParameter, NetParameter, SolverParameter
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.net.graph import NetState, layers_in_state

__all__ = ["is_chain", "kind_of", "steps_plainly"]

_ACTIVATIONS = frozenset({"ReLU", "Sigmoid", "TanH"})


def steps_plainly(solver: SolverParameter) -> bool:
    """Return whether an iteration is one pass, and no gradient depends on those of other blobs."""
    return solver.iter_size == 1 and solver.clip_gradients < 0


def is_chain(net: NetParameter, layers: Sequence[LayerParameter]) -> bool:
    """Return whether layers are Data, InnerProducts and activations in a row, and a softmax's loss.

    All blobs with weights learn, and each belongs to one layer; Data brings all runs the same.

    Args:
        net: Theirs.
        layers: Of the phase TRAIN.
    """
    if len(layers) < 3 or net.force_backward or not _brings_the_same(layers[0]):
        return False
    blob, labels = layers[0].top
    *inner, loss = layers[1:]
    if inner[0].type != "InnerProduct":
        return False
    for layer in inner:
        if list(layer.bottom) != [blob] or len(layer.top) != 1 or not _is_plain(layer):
            return False
        (blob,) = layer.top
        if blob == labels:
            return False
    return list(loss.bottom) == [blob, labels] and _is_plain_loss(loss)


def _brings_the_same(layer: LayerParameter) -> bool:
    transform = layer.transform_param
    return (
        layer.type == "Data"
        and len(layer.top) == 2
        and not transform.mirror
        and not transform.crop_size
    )


def _is_plain(layer: LayerParameter) -> bool:
    if layer.propagate_down or any(layer.loss_weight):
        return False
    if layer.type == "InnerProduct":
        settings = layer.inner_product_param
        learns = all(spec.lr_mult and not spec.name for spec in layer.param)
        return learns and settings.axis == 1 and not settings.transpose
    return layer.type in _ACTIVATIONS and not layer.relu_param.negative_slope


def _is_plain_loss(layer: LayerParameter) -> bool:
    return (
        layer.type == "SoftmaxWithLoss"
        and len(layer.top) <= 1
        and not layer.propagate_down
        and all(layer.loss_weight)
        and not layer.loss_param.HasField("ignore_label")
        and layer.softmax_param.axis == 1
    )


def kind_of(folder: RunFolder, job: Job) -> str | None:
    """Return what a prepared run has in common with those that can be stacked with it, or None.

    Runs of one kind may still be unlike in the weights that are left; the worker sees to that.

    Raises:
        FormatError: Its net or its solver cannot be read.
    """
    if job.masking or job.tying or job.distillation or job.device != "cpu":
        return None
    net = read_net(folder.net)
    layers = layers_in_state(net, NetState(TRAIN))
    if not (is_chain(net, layers) and steps_plainly(read_solver(folder.solver))):
        return None
    return f"{job.net_sha256} {job.solver_sha256}"
