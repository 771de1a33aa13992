"""What a caffemodel takes on disk in the forms that the package writes, and zipped."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.compressed.file import compressed_size
from pycaffe_prune.formats.npz import zipped_size
from pycaffe_prune.formats.sparse import sparse_size

__all__ = ["LayerNonZeros", "StorageSizes", "storage_sizes"]


@dataclass(frozen=True)
class LayerNonZeros:
    """How much of one layer's blobs is not zero."""

    name: str
    values: int
    non_zeros: int


@dataclass(frozen=True)
class StorageSizes:
    """What a model takes on disk, in bytes, in the forms that one may compare."""

    dense: int
    """The caffemodel."""
    dense_zip: int
    """The caffemodel in a zip archive (deflate)."""
    sparse: int
    """The sparse form (``.sparse.npz``)."""
    sparse_zip: int
    """The sparse form with its members deflated."""
    compressed: int
    """The compressed form (``.cpz``)."""
    layers: tuple[LayerNonZeros, ...]
    """Those with blobs."""


def storage_sizes(path: Path) -> StorageSizes:
    """Measure a caffemodel's storage; nothing is written, and no packed form is held in memory.

    Raises:
        FormatError: As `read_caffemodel`.
    """
    model = read_caffemodel(path)
    return StorageSizes(
        dense=path.stat().st_size,
        dense_zip=zipped_size(path),
        sparse=sparse_size(model),
        sparse_zip=sparse_size(model, zipfile.ZIP_DEFLATED),
        compressed=compressed_size(model),
        layers=tuple(
            LayerNonZeros(
                layer.name,
                sum(blob.size for blob in layer.blobs),
                sum(int(np.count_nonzero(blob)) for blob in layer.blobs),
            )
            for layer in model.layers
            if layer.blobs
        ),
    )
