"""Features: a blob of a trained net for every image of a data set, as a data set of its own.

What is trained on them is as if the layers up to the blob had a learning rate of zero, and no image
were cropped or mirrored at random.
"""

import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from data_prep.dataset import Content, Recipe, build_data_set
from data_prep.lmdb_writer import Batch
from data_prep.manifest import Manifest, SplitName, load_manifest
from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.contents import lmdb_content
from pycaffe_prune.errors import DataError, InterruptedRunError
from pycaffe_prune.experiments.features.trunk import Trunk, cut_trunk
from pycaffe_prune.formats.files import atomic_write, sha256_of
from pycaffe_prune.formats.lmdb_images import as_data_layer, stored_images
from pycaffe_prune.screen import PlainColumn, Screen

__all__ = ["LMDB_NAMES", "FeatureRequest", "FeatureSettings", "build_features"]

LMDB_NAMES: Mapping[SplitName, str] = {
    "train": "features_train_lmdb",
    "test": "features_test_lmdb",
}

_SETTINGS = "features.json"
_PARTS = ".parts"
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises of a damaged npz file."""


@dataclass(frozen=True)
class FeatureRequest:
    """Which features are wanted."""

    net: Path
    """A prototxt, deploy or train_val; its TEST net is used."""
    weights: Path
    blob: str
    data: Path
    """Folder of the images' data set (`data_prep.manifest`)."""
    grid: int | None = None
    """Average each map over the cells of a grid of this side; None: take the blob as it is."""
    mean: NDArray[np.float32] | None = None
    """Subtracted from the images: channels × height × width as they are, or × 1 × 1."""
    scale: float = 1.0
    """The images are multiplied by it."""
    batch: int = 64
    """Images in one call of the engine; only speed and memory depend on it."""
    tf32: bool = False
    """Whether the engine was told that a GPU may round to TF32: the features are others then."""
    trust: bool = False
    """Whether the net is the user's own, and may run code (`net.trust`)."""


class FeatureSettings(BaseModel):
    """What features depend on (``features.json`` beside their manifest)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    net_sha256: str
    """Over the layers that lead to the blob."""
    weights_sha256: str
    blob: str
    grid: int | None
    mean_sha256: str | None
    scale: float
    images: dict[SplitName, str]
    """The checksum of each LMDB of images."""
    engine: str
    tf32: bool = False
    trusted: bool = False


def build_features(
    out: Path,
    request: FeatureRequest,
    engine: Engine,
    *,
    jobs: int = 1,
    force: bool = False,
    console: Console | None = None,
    stopped: Event | None = None,
) -> Manifest:
    """Compute the features of all images of a data set, and build LMDBs of them in ``out``.

    Interrupted or killed, the same call goes on with the batch at which it was. Values lie in the
    LMDBs as ``float_data``, which the Data layer of every Caffe reads.

    Args:
        out: The features' folder; made when missing.
        request: Which features.
        engine: What computes them.
        jobs: Calls of the engine side by side.
        force: Compute again what is already there.
        console: Where to show progress (default: the standard error stream).
        stopped: Set it, from anywhere, to end after the batches in progress.

    Returns:
        The manifest, which is also in ``out``.

    Raises:
        DataError: The images cannot be read, or ``out`` holds something else.
        EngineError: The engine failed.
        FormatError: Net or weights cannot be read, or the net's data layer has a mean or a
            scale, and the request none.
        InterruptedRunError: ``stopped`` was set; what is computed is kept.
        SurgeryError: The net has no such blob, or the images do not fit into it.
    """
    images = load_manifest(request.data)
    shape = images.splits["train"].shape
    trunk = cut_trunk(
        request.net,
        request.weights,
        request.blob,
        shape,
        grid=request.grid,
        trust=request.trust,
    )
    trunk.require_prepared(request.mean is not None, request.scale != 1)
    settings = _settings(request, trunk, images, engine.name)
    console = console or Screen(stderr=True)
    work = _Work(request, trunk, images, engine, out / _PARTS / _key(settings))

    def load() -> Content:
        with _progress(console, sum(split.count for split in images.splits.values())) as show:
            work.compute(jobs, show, stopped or Event())
        return Content({name: work.read(name) for name in LMDB_NAMES})

    recipe = Recipe(
        name="features",
        source=f"{request.blob} of {request.weights.name} for {images.name}, engine {engine.name}",
        is_sample=images.is_sample,
        lmdbs=LMDB_NAMES,
        counts={name: split.count for name, split in images.splits.items()},
        shape=trunk.shape,
        load=load,
        texts={_SETTINGS: settings.model_dump_json(indent=1) + "\n"},
        require_same=lambda: _require_same_features(out, settings),
    )
    manifest = build_data_set(out, recipe, force=force, console=console)
    shutil.rmtree(out / _PARTS, ignore_errors=True)
    return manifest


def _settings(
    request: FeatureRequest, trunk: Trunk, images: Manifest, engine: str
) -> FeatureSettings:
    mean = request.mean
    return FeatureSettings(
        net_sha256=hashlib.sha256(trunk.net.SerializeToString(deterministic=True)).hexdigest(),
        weights_sha256=sha256_of(request.weights),
        blob=request.blob,
        grid=request.grid,
        mean_sha256=None if mean is None else hashlib.sha256(mean.tobytes()).hexdigest(),
        scale=request.scale,
        images={
            name: lmdb_content(request.data / split.lmdb).sha256
            for name, split in images.splits.items()
        },
        engine=engine,
        tf32=request.tf32,
        trusted=request.trust,
    )


def _key(settings: FeatureSettings) -> str:
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]


def _require_same_features(out: Path, settings: FeatureSettings) -> None:
    """Refuse a folder of finished features that were made in another way."""
    path = out / _SETTINGS
    if not path.is_file():
        raise DataError(
            f"{out}: holds features, but no {_SETTINGS} that says what they depend on; choose "
            "another --out, or give --force to replace them"
        )
    try:
        earlier = FeatureSettings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path}: is damaged; give --force to compute again") from error
    old, new = earlier.model_dump(), settings.model_dump()
    if differing := [name for name in old if old[name] != new[name]]:
        raise DataError(
            f"{out}: holds features with other {', '.join(differing)}; choose another --out, or "
            "give --force to replace them"
        )


@dataclass(frozen=True)
class _Part:
    """Some images in a row, and the file of their features."""

    split: SplitName
    first: int
    count: int
    path: Path


class _Work:
    """The features on their way: a file for each batch, until LMDBs are made of all."""

    def __init__(
        self,
        request: FeatureRequest,
        trunk: Trunk,
        images: Manifest,
        engine: Engine,
        folder: Path,
    ) -> None:
        self._request, self._trunk = request, trunk
        self._images, self._engine = images, engine
        self._parts = [
            _Part(name, first, count, folder / f"{name}-{first:08d}-{count}.npz")
            for name, split in images.splits.items()
            for first in range(0, split.count, request.batch)
            for count in [min(request.batch, split.count - first)]
        ]

    def compute(self, jobs: int, show: Callable[[int], None], stopped: Event) -> None:
        """Compute the parts that are not there; ``show`` how many images are done."""
        todo = [part for part in self._parts if not part.path.is_file()]
        total = sum(part.count for part in self._parts)
        done = total - sum(part.count for part in todo)
        counting = Lock()
        show(done)

        def work(part: _Part) -> None:
            nonlocal done
            if stopped.is_set():
                return
            self._compute(part)
            with counting:
                done += part.count
                show(done)

        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(work, part) for part in todo]
            if any(future.exception() for future in wait(futures, None, FIRST_EXCEPTION).done):
                pool.shutdown(cancel_futures=True)
        for future in futures:
            if not future.cancelled():
                future.result()
        if done < total:
            raise InterruptedRunError(
                f"stopped with the features of {done:,} of {total:,} images computed; the same "
                "command goes on from there"
            )

    def _compute(self, part: _Part) -> None:
        folder = self._request.data / self._images.splits[part.split].lmdb
        found = list(islice(stored_images(folder, part.first), part.count))
        if len(found) < part.count:
            raise DataError(f"{folder}: holds fewer images than its manifest says; build it again")
        request, shape = self._request, self._trunk.input_shape
        images = np.stack(
            [
                as_data_layer(stored.pixels, shape, mean=request.mean, scale=request.scale)
                for stored in found
            ]
        )
        features = self._trunk.features(self._engine, images)
        with atomic_write(part.path) as temporary:
            np.savez(
                temporary,
                allow_pickle=False,
                features=features,
                labels=np.array([stored.label for stored in found]),
            )

    def read(self, split: SplitName) -> Iterator[Batch]:
        """Yield the features of a split in the order of its images."""
        for part in self._parts:
            if part.split != split:
                continue
            try:
                # Opened here: of a damaged file NumPy would leave its own handle open.
                with part.path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                    yield Batch(found["features"], found["labels"])
            except _UNREADABLE as error:
                raise DataError(
                    f"{part.path}: is damaged ({error}); remove it and run the command again"
                ) from error


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    columns = (
        PlainColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("features", total=total)
        yield lambda done: progress.update(bar, completed=done)
