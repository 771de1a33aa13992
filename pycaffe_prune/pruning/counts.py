"""Reduction rates as the paper counts them: weights only, biases and other layers left out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel
from pycaffe_prune.formats.mask import Mask

__all__ = [
    "LayerReduction",
    "deleted_reduction",
    "masked_reduction",
    "overall",
    "require_finite",
    "weight_counts",
]


@dataclass(frozen=True)
class LayerReduction:
    """How many weights of one layer are left."""

    layer: str
    weights: int
    """Weights before any pruning."""
    kept: int

    @property
    def reduction(self) -> float:
        """Share of the weights that is gone, 0 to 1."""
        return 1 - self.kept / self.weights


def masked_reduction(masks: Mapping[BlobKey, Mask]) -> list[LayerReduction]:
    """Count what connection pruning left in the masked blobs of each layer."""
    of_layer: dict[str, list[Mask]] = {}
    for (layer, _), mask in masks.items():
        of_layer.setdefault(layer, []).append(mask)
    return [
        LayerReduction(
            layer, sum(mask.size for mask in held), sum(int(mask.sum()) for mask in held)
        )
        for layer, held in of_layer.items()
    ]


def weight_counts(model: Caffemodel, layers: Iterable[str]) -> dict[str, int]:
    """Return the number of weights (blob 0, zeros included) of each layer."""
    return {name: model.layer(name).blobs[0].size for name in layers}


def deleted_reduction(
    before: Caffemodel, after: Caffemodel, layers: Iterable[str]
) -> list[LayerReduction]:
    """Count what unit pruning left in the weight blobs of ``layers``."""
    return [
        LayerReduction(name, before.layer(name).blobs[0].size, after.layer(name).blobs[0].size)
        for name in layers
    ]


def overall(layers: Iterable[LayerReduction]) -> float:
    """Return the reduction over all the given layers: the weight-weighted mean (paper, Table 5)."""
    rows = list(layers)
    return 1 - sum(row.kept for row in rows) / sum(row.weights for row in rows)


def require_finite(model: Caffemodel, layers: Iterable[str]) -> None:
    """Refuse weights that no threshold can judge.

    Raises:
        SurgeryError: A blob of ``layers`` holds NaN or infinite values.
    """
    for name in layers:
        for index, blob in enumerate(model.layer(name).blobs):
            bad = blob.size - int(np.count_nonzero(np.isfinite(blob)))
            if bad:
                extents = "x".join(map(str, blob.shape))
                raise SurgeryError(
                    f"layer '{name}', blob {index} ({extents}): {bad} of {blob.size} values are "
                    "NaN or infinite; train again from an earlier snapshot or with a lower base_lr"
                )
