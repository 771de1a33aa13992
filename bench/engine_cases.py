"""What `engines.py` trains: the paper's networks, ready to run in a folder of their own."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter, SolverParameter
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.prototxt import read_net, read_solver, write_prototxt
from pycaffe_prune.net.counts import count_layers
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.share import share_root

if TYPE_CHECKING:  # whoever races needs no PyTorch in this process
    from pycaffe_prune.engines.torch.net import Net

__all__ = ["BLOCKS", "caffenet_to_train", "operations", "sparse_masks", "write_case"]

BLOCKS = {"lenet_300_100": 100, "lenet": 20, "caffenet": 1}
"""The networks, and iterations at a time: about as long for each."""


def caffenet_to_train() -> NetParameter:
    """CaffeNet at batch 50 without Dropout, as in the paper, on images that stay the same."""
    net = read_net(share_root() / "prototxt" / "caffenet" / "deploy.prototxt")
    layers = [layer for layer in net.layer if layer.type not in ("Input", "Dropout", "Softmax")]
    made = NetParameter(name=net.name)
    data = made.layer.add(name="data", type="DummyData", top=["data", "label"])
    for extents in ([50, 3, 227, 227], [50]):
        data.dummy_data_param.shape.add().dim.extend(extents)
        data.dummy_data_param.data_filler.add(type="constant", value=1)
    made.layer.extend(layers)
    made.layer.add(
        name="loss", type="SoftmaxWithLoss", bottom=[layers[-1].top[0], "label"], top=["loss"]
    )
    return made


def write_case(network: str, data: Path, folder: Path) -> None:
    """Write ``net.prototxt`` and ``solver.prototxt``, which only train, into a new folder.

    Args:
        network: One of `BLOCKS`.
        data: MNIST's LMDBs.
        folder: The folder.
    """
    if network == "caffenet":
        net = caffenet_to_train()
        solver = SolverParameter(base_lr=0.001, momentum=0.9, weight_decay=0.0005)
        solver.lr_policy, solver.max_iter = "fixed", 10**6
    else:
        net = read_net(share_root() / "prototxt" / network / "train_val.prototxt")
        solver = read_solver(share_root() / "solvers" / f"{network}.prototxt")
        for layer in net.layer:
            if layer.type == "Data":
                layer.data_param.source = str((data / layer.data_param.source).resolve())
    solver.net, solver.random_seed, solver.display, solver.snapshot = "net.prototxt", 1, 0, 0
    solver.ClearField("test_iter")
    solver.ClearField("test_interval")
    solver.snapshot_after_train = False
    folder.mkdir()
    write_prototxt(folder / "net.prototxt", net)
    write_prototxt(folder / "solver.prototxt", solver)


def sparse_masks(net: "Net") -> dict[BlobKey, NDArray[np.bool_]]:
    """Return masks that keep a tenth of the weights of InnerProduct layers, drawn at random."""
    random = np.random.default_rng(0)
    shapes = {name: blobs[0].shape for name, blobs in net.params.items()}
    return {
        (name, 0): random.random(shape) < 0.1 for name, shape in shapes.items() if len(shape) == 2
    }


def operations(folder: Path) -> float:
    """Floating-point operations of an iteration in Convolution and InnerProduct.

    Forward two a multiply-add; backward twice that, less the first layer's data gradient, which
    nobody computes.
    """
    layers = layers_in_state(read_net(folder / "net.prototxt"), NetState(TRAIN))
    batch = layers[0].data_param.batch_size or layers[0].dummy_data_param.shape[0].dim[0]
    inputs = {} if layers[0].type == "DummyData" else {"data": (batch, 1, 28, 28)}
    macs = [layer.macs for layer in count_layers(layers, inputs) if layer.macs]
    return 2.0 * batch * (3 * sum(macs) - macs[0])
