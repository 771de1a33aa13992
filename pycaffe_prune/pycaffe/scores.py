"""What a solver logs of its nets' outputs (`Solver::Step` and `Solver::Test`)."""

import numpy as np

from pycaffe_prune.pycaffe.glog import log, number
from pycaffe_prune.pycaffe.net import Net

__all__ = ["log_outputs", "log_scores"]


def log_outputs(net: Net) -> None:
    """Log every value of a training net's outputs, as the last pass left them."""
    for place, (name, weight, value) in enumerate(_values(net)):
        log(f"    Train net output #{place}: {_told(name, weight, value)}")


def log_scores(net: Net, times: int, *, with_loss: bool) -> None:
    """Run batches through a test net and log the means of its outputs.

    Args:
        net: The test net.
        times: How many batches.
        with_loss: Whether to log the mean of the loss, too.

    Raises:
        PruneError: The data are damaged.
    """
    if not times:
        return
    last, loss = len(net.layers) - 1, 0.0
    totals: list[np.float32] = []
    for time in range(times):
        if with_loss:
            loss += net._forward(0, last)
        else:
            net._run_forward(0, last)
        values = [value for _, _, value in _values(net)]
        totals = [a + b for a, b in zip(totals, values, strict=True)] if time else values
    if with_loss:
        log(f"Test loss: {number(loss / times)}")
    for place, ((name, weight, _), total) in enumerate(zip(_values(net), totals, strict=True)):
        mean = np.float32(total / np.float32(times))
        log(f"    Test net output #{place}: {_told(name, weight, mean)}")


def _values(net: Net) -> list[tuple[str, float, np.float32]]:
    """Name, loss weight and value of everything in a net's outputs."""
    names, weights = net._blob_names, net._blob_loss_weights
    return [
        (names[place], weights[place], value)
        for place in net._outputs
        for value in net._blobs[place]._read().flatten().cpu().numpy()
    ]


def _told(name: str, weight: float, value: np.float32) -> str:
    text = f"{name} = {number(float(value))}"
    if weight:
        text += f" (* {number(weight)} = {number(float(np.float32(weight) * value))} loss)"
    return text
