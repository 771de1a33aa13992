"""What a caffemodel holds: counts of weights and non-zeros per blob."""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from pycaffe_prune.formats.caffemodel import read_caffemodel

__all__ = ["BlobSummary", "ModelSummary", "summarise"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class BlobSummary(_Model):
    """One blob."""

    layer: str
    type: str
    index: int
    """0 weight, 1 bias."""
    shape: tuple[int, ...]
    count: int
    nonzero: int
    finite: bool
    minimum: float
    maximum: float
    std: float
    """Population standard deviation over all values, in float64."""


class ModelSummary(_Model):
    """One caffemodel."""

    path: str
    name: str
    bytes: int
    parameters: int
    nonzero: int
    blobs: tuple[BlobSummary, ...]


def summarise(path: Path) -> ModelSummary:
    """Count and measure every blob of a caffemodel.

    Raises:
        FormatError: The file is missing, damaged, or no caffemodel.
    """
    model = read_caffemodel(path)
    blobs = []
    for layer in model.layers:
        for index, blob in enumerate(layer.blobs):
            sound = bool(np.isfinite(blob).all())
            measurable = sound and blob.size > 0
            blobs.append(
                BlobSummary(
                    layer=layer.name,
                    type=layer.type,
                    index=index,
                    shape=blob.shape,
                    count=blob.size,
                    nonzero=int(np.count_nonzero(blob)),
                    finite=sound,
                    minimum=float(blob.min()) if measurable else 0.0,
                    maximum=float(blob.max()) if measurable else 0.0,
                    std=float(blob.std(dtype=np.float64)) if measurable else 0.0,
                )
            )
    return ModelSummary(
        path=str(path),
        name=model.net.name,
        bytes=path.stat().st_size,
        parameters=sum(blob.count for blob in blobs),
        nonzero=sum(blob.nonzero for blob in blobs),
        blobs=tuple(blobs),
    )
