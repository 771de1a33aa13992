"""Parameters of layers of the same name, from a file or from another net."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pycaffe_prune.engines.torch.build import Step
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.weights import read_weights

__all__ = ["load_by_name", "share_by_name"]


def load_by_name(path: Path, steps: Iterable[Step]) -> None:
    """Copy weights into the layers of the same names; see `Net.copy_from`.

    Raises:
        FormatError: The file is damaged.
        SurgeryError: A layer's blobs are not as many, or not of the shapes, that the net has.
    """
    known = {step.layer.param.name: step for step in steps if step.params}
    for stored in read_weights(path).layers:
        step = known.get(stored.name)
        if step is None or not stored.blobs:
            continue
        held = [blob.shape for blob in stored.blobs]
        # HDF5 files hold a shared blob at its owner only.
        owned = [key == (stored.name, index) for index, key in enumerate(step.keys)]
        needed = step.params[: len(held)] if not any(owned[len(held) :]) else step.params
        _require_same(f"{path}: layer '{stored.name}'", held, needed)
        for target, blob in zip(needed, stored.blobs, strict=True):
            target.copy_(torch.from_numpy(np.array(blob, np.float32)))


def share_by_name(steps: Iterable[Step], others: Iterable[Step]) -> None:
    """Let the layers use the blobs of the others of the same names; see `Net.share_with`.

    Raises:
        SurgeryError: Their shapes differ.
    """
    theirs = {step.layer.param.name: step.params for step in others}
    for step in steps:
        name = step.layer.param.name
        if step.params and name in theirs:
            held = [tuple(param.shape) for param in theirs[name]]
            _require_same(f"the net that is shared: layer '{name}'", held, step.params)
            step.params = list(theirs[name])


def _require_same(origin: str, held: Sequence[Shape], params: Sequence[Tensor]) -> None:
    wanted = [tuple(param.shape) for param in params]
    if held != wanted:
        raise SurgeryError(
            f"{origin} holds {_listed(held)}, the net says {_listed(wanted)}; give the weights of "
            "this net"
        )


def _listed(shapes: Sequence[Shape]) -> str:
    return ", ".join(extents(shape) for shape in shapes)
