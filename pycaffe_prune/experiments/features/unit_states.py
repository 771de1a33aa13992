"""How often units are on over training images, and the entropy of that (He et al. 2014)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.experiments.features.net_outputs import net_outputs
from pycaffe_prune.experiments.features.training_images import TrainingImages
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.on_states import on_states, with_on_states
from pycaffe_prune.pruning.criteria.entropy import entropy
from pycaffe_prune.pruning.criteria.units import Scores

__all__ = ["entropy_scores"]


def entropy_scores(
    net: NetParameter,
    net_path: Path,
    model: Caffemodel,
    layers: Sequence[str],
    images: TrainingImages,
    wanted: range,
    engine: Engine,
    *,
    trust: bool = False,
) -> dict[str, Scores]:
    """Return the entropy of the on/off state of each unit of ``layers``, in bits.

    Of a filter each position of each image counts as one look at it.

    Args:
        net: In the V2 form.
        net_path: Where it was read from, for sentences.
        model: Its weights.
        layers: Those to score.
        images: The images that the net is trained on.
        wanted: Which of them.
        engine: What runs them through the TEST net.
        trust: Whether the net is the user's own, and may run code (`net.trust`).

    Returns:
        Per layer, shape (units,), float64, 0 to 1.

    Raises:
        EngineError: The engine failed.
        FormatError: As `net_outputs`.
        SurgeryError: A layer has no ReLU or Sigmoid behind it (`net.on_states`), or as
            `net_outputs`.
    """
    told, blobs = with_on_states(net, on_states(net, layers))
    names = list(dict.fromkeys(blobs.values()))
    on: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
    seen = dict.fromkeys(names, 0)
    for found, _ in net_outputs(told, net_path, model, names, images, wanted, engine, trust=trust):
        for name, states in zip(names, found, strict=True):
            looks = states.reshape(*states.shape[:2], -1)
            counts = np.count_nonzero(looks, axis=(0, 2)).astype(np.int64)
            on[name] = on[name] + counts if name in on else counts
            seen[name] += looks.shape[0] * looks.shape[2]
    return {layer: entropy(on[blobs[layer]], seen[blobs[layer]]) for layer in layers}
