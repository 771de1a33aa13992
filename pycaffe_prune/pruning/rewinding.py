"""Rewinding: what survives goes back to its value of an earlier iteration (Frankle, Carbin 2019).

The earlier values are those of a snapshot of the same run: of the iteration 0, as its fillers left
them, or of a later one (``checkpoints`` of a run).
"""

from collections.abc import Mapping

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.pruning.connections import apply_masks

__all__ = ["rewind"]


def rewind(model: Caffemodel, earlier: Caffemodel, masks: Mapping[BlobKey, Mask]) -> Caffemodel:
    """Return the weights of an earlier iteration, with zeros where a mask is False.

    Biases and all that has no mask go back as a whole, as in a run that begins with the mask.

    Args:
        model: The weights that the masks were chosen by.
        earlier: Of the same net, at an earlier iteration.
        masks: True = kept.

    Raises:
        SurgeryError: The two are not of one net, or a mask has another shape than its blob.
        FormatError: A masked layer is not in the model.
    """
    now = {key: blob.shape for key, blob in model.blobs()}
    then = {key: blob.shape for key, blob in earlier.blobs()}
    if differing := sorted(set(now.items()) ^ set(then.items())):
        (name, index), _ = differing[0]
        raise SurgeryError(
            f"layer '{name}', blob {index} is not the same in the weights to prune and the earlier "
            "ones; take a snapshot of the same net"
        )
    return apply_masks(earlier, masks)
