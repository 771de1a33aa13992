"""MNIST from its four original files, local or downloaded."""

import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from data_prep.dataset import Content, Recipe, build_data_set, in_batches
from data_prep.download_limits import limits
from data_prep.idx import idx_shape, read_labelled_images, read_unpacked
from data_prep.lmdb_writer import Batch
from data_prep.manifest import Manifest, SplitName
from pycaffe_prune.cache import cache_root
from pycaffe_prune.errors import DataError, DownloadError
from pycaffe_prune.screen import Screen

__all__ = ["LMDB_NAMES", "build_mnist"]

LMDB_NAMES: Mapping[SplitName, str] = {"train": "mnist_train_lmdb", "test": "mnist_test_lmdb"}
"""Folder names as Caffe's own MNIST example has them."""

_SIDE = 28
_STEMS: Mapping[SplitName, str] = {"train": "train", "test": "t10k"}
_MD5 = {  # of the unpacked original files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_SHAPES: Mapping[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60_000, _SIDE, _SIDE),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, _SIDE, _SIDE),
    "t10k-labels-idx1-ubyte": (10_000,),
}
_MOST_BEYOND = 1 << 16  # bytes around the values: headers, and packing that gains nothing
_SHA256: Mapping[SplitName, str] = {  # of the LMDBs that they make
    "train": "c24e9fc29a113e74eb782d29cabc2c93843565c2058fa27b0131ccdf7e29e66b",
    "test": "59cd19dd306b99878c72aeca2593fc486560b83bd5e484c278580da23899020a",
}
_FULL_COUNTS: Mapping[SplitName, int] = {"train": 60_000, "test": 10_000}
_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)


def build_mnist(
    out: Path,
    source: Path | None = None,
    *,
    hold_out: int = 0,
    force: bool = False,
    console: Console | None = None,
) -> Manifest:
    """Build MNIST's LMDBs and mean image in the folder ``out``.

    The four files are taken from ``source``; without it from ``$PYCAFFE_PRUNE_DATA/mnist`` where
    that folder is there; else they are downloaded. They may be packed with gzip or not.

    Args:
        out: The data set's folder; made when missing.
        source: Folder with the four files.
        hold_out: So many of the last training images are the test set in place of MNIST's own, and
            are not trained on: settings are chosen on them. 0: MNIST as it is.
        force: Build again what is already there.
        console: Where to show progress (default: the standard error stream).

    Returns:
        The manifest, which is also in ``out``.

    Raises:
        DataError: A file is missing, damaged or cannot be downloaded, or ``out`` holds something
            else or cannot be written.
    """
    console = console or Screen(stderr=True)
    folder = source or _default_source()
    recipe = _download_recipe(console) if folder is None else _local_recipe(folder)
    recipe = _held_out(recipe, hold_out) if hold_out else recipe
    return build_data_set(out, recipe, force=force, console=console)


def _held_out(recipe: Recipe, count: int) -> Recipe:
    """Return the recipe with the last ``count`` training images as its test set."""
    there = recipe.counts["train"]
    if not 0 < count < there:
        raise DataError(f"{count:,} of {there:,} training images cannot be held out")

    def load() -> Content:
        batches = list(recipe.load().splits["train"])
        images = np.concatenate([batch.images for batch in batches])
        labels = np.concatenate([batch.labels for batch in batches])
        kept = there - count
        return Content(
            {
                "train": in_batches(images[:kept], labels[:kept]),
                "test": in_batches(images[kept:], labels[kept:]),
            }
        )

    return replace(
        recipe,
        source=f"{recipe.source}; the test set is the last {count:,} training images",
        counts={"train": there - count, "test": count},
        load=load,
        originals={},
    )


def _default_source() -> Path | None:
    data = os.environ.get("PYCAFFE_PRUNE_DATA")
    folder = Path(data, "mnist") if data else None
    return folder if folder is not None and folder.is_dir() else None


def _local_recipe(folder: Path) -> Recipe:
    files = {name: _find(folder, name) for name in _MD5}
    counts = {split: _image_count(files[_images(split)]) for split in LMDB_NAMES}
    return _recipe("local files", counts, functools.partial(_load, files))


def _download_recipe(console: Console) -> Recipe:
    return _recipe("download", _FULL_COUNTS, lambda: _load(_download(console)))


def _recipe(source: str, counts: Mapping[SplitName, int], load: Callable[[], Content]) -> Recipe:
    return Recipe(
        name="mnist",
        source=source,
        is_sample=False,
        lmdbs=LMDB_NAMES,
        counts=counts,
        shape=(1, _SIDE, _SIDE),
        load=load,
        originals=_SHA256,
    )


def _find(folder: Path, name: str) -> Path:
    """Return the file of that name in ``folder``, in whichever spelling and packing."""
    dotted = name.replace("-idx", ".idx")
    for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataError(
        f"{folder}: {name} (or {name}.gz) is not there; give --source a folder with MNIST's four "
        "files, or leave it out to download them"
    )


def _images(split: SplitName) -> str:
    return f"{_STEMS[split]}-images-idx3-ubyte"


def _labels(split: SplitName) -> str:
    return f"{_STEMS[split]}-labels-idx1-ubyte"


def _image_count(path: Path) -> int:
    shape = idx_shape(path)
    if shape[1:] != (_SIDE, _SIDE) or not shape[0]:
        raise DataError(f"{path}: holds {shape} values, not {_SIDE}×{_SIDE} images")
    return shape[0]


def _load(files: Mapping[str, Path]) -> Content:
    splits: dict[SplitName, Iterator[Batch]] = {}
    for split in LMDB_NAMES:
        images, labels = read_labelled_images(files[_images(split)], files[_labels(split)])
        splits[split] = in_batches(images[:, np.newaxis], labels)
    return Content(splits)


def _download(console: Console) -> dict[str, Path]:
    from data_prep.download import fetch  # a twelfth of a second that most builds do not need

    mirrors = os.environ.get("PYCAFFE_PRUNE_MNIST_MIRRORS", "").split() or _MIRRORS
    folder = cache_root() / "mnist"
    files = {}
    try:
        for name in _MD5:
            files[name] = fetch(
                [f"{mirror.rstrip('/')}/{name}.gz" for mirror in mirrors],
                folder / f"{name}.gz",
                functools.partial(_check_original, name),
                console=console,
                limits=limits(math.prod(_SHAPES[name]) + _MOST_BEYOND),
            )
    except DownloadError as error:
        raise DownloadError(
            f"{error}. Put MNIST's four files into a folder and name it with --source, or name "
            "other mirrors in PYCAFFE_PRUNE_MNIST_MIRRORS."
        ) from error
    return files


def _check_original(name: str, path: Path) -> None:
    """Raise a `DataError` unless ``path`` unpacks to MNIST's original file ``name``.

    Mirrors pack it each in their own way, so that packed files have no checksum in common: one
    whose header promises the original's values is unpacked, and never further than these go.
    """
    if (shape := idx_shape(path)) != _SHAPES[name]:
        raise DataError(f"its header promises {shape} values, {name} has {_SHAPES[name]}")
    md5 = hashlib.md5(read_unpacked(path), usedforsecurity=False).hexdigest()
    if md5 != _MD5[name]:
        raise DataError(f"its unpacked content has md5 {md5}, {name} has {_MD5[name]}")
