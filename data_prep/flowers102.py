"""Oxford 102 category flowers, split as the paper has it, warped as convert_imageset does it."""

import functools
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from data_prep.dataset import Content, Recipe, build_data_set, refuse_gaps
from data_prep.decoding import Decoders
from data_prep.download_limits import limits
from data_prep.flowers102_lists import (
    LABELS_FILE,
    SPLIT_FILE,
    ListedImage,
    Parts,
    image_lists,
    read_parts,
)
from data_prep.image_files import ImageFile, duplicates, find_images
from data_prep.lmdb_writer import Batch, Record
from data_prep.manifest import Manifest, SplitName
from data_prep.mean import COMPUTED, given_mean, mean_of
from data_prep.warp import decode, encoded_datum, jpeg_of, raw_datum, warp
from pycaffe_prune.cache import cache_root
from pycaffe_prune.errors import DataError, DownloadError
from pycaffe_prune.screen import Screen

__all__ = ["LMDB_NAMES", "build_flowers102"]

LMDB_NAMES: Mapping[SplitName, str] = {
    "train": "flowers102_train_lmdb",
    "test": "flowers102_test_lmdb",
}

_ARCHIVE = "102flowers.tgz"
_MOST_BYTES = {_ARCHIVE: 1 << 29, SPLIT_FILE: 1 << 20, LABELS_FILE: 1 << 20}  # 345 MB, 15 and 1 KB
_MD5 = {  # the archive's as other projects record it, for want of the file; the others' checked
    _ARCHIVE: "52808999861908f626f3c1f4e79d11fa",
    LABELS_FILE: "e0620be6f572b9609742df49c70aed4d",
    SPLIT_FILE: "a5357ecc9cb78c4bef273ce3793fc85c",
}
_FULL_COUNTS: Mapping[SplitName, int] = {"train": 6149, "test": 1020}
_MIRRORS = ("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",)
_MIRRORS_VARIABLE = "PYCAFFE_PRUNE_FLOWERS_MIRRORS"
_SCRATCH_NAME = ".images.partial.tar"
_BATCH = 16  # images; a raw one of 256×256 has 192 KiB


_Numbered = Sequence[tuple[int, ListedImage]]
"""Some images, each with its place in its list."""


@dataclass(frozen=True)
class _Wish:
    """How the data set is to be: see `build_flowers102`."""

    out: Path
    encoded: bool
    size: int
    limit: int | None
    threads: int
    keep_going: bool


@dataclass(frozen=True)
class _Files:
    """Where the data set's files are; ``images`` may be a folder or an archive."""

    images: Path
    labels: Path
    split: Path


def build_flowers102(
    out: Path,
    source: Path | None = None,
    *,
    labels: Path | None = None,
    encoded: bool = False,
    size: int = 256,
    mean: Path | str = COMPUTED,
    limit: int | None = None,
    keep_going: bool = False,
    threads: int | None = None,
    force: bool = False,
    console: Console | None = None,
) -> Manifest:
    """Build the flowers' LMDBs and mean image in the folder ``out``.

    As in the paper, the official test part (``tstid``, 6,149 images) is the training set and the
    official training part (``trnid``, 1,020) the test set; labels count from 0, and the order is
    that of the Model Zoo recipe's image lists. Images are decoded and warped to a square by
    OpenCV, and stored under the keys ``00000000_jpg/image_00123.jpg``, as Caffe's convert_imageset
    does from these lists. The same files under two numbers are told in the manifest's warnings.

    The files are taken from ``source``; without it from ``$PYCAFFE_PRUNE_DATA/flowers102`` where
    that folder is there; else they are downloaded and checked.

    Args:
        out: The data set's folder; made when missing.
        source: The images: a folder or an archive, see `data_prep.image_files.find_images`.
        labels: Folder of imagelabels.mat and setid.mat; default: where the images are, or one
            folder above.
        encoded: Store JPEG files instead of pixels: a tenth of the size, decoded at each reading.
        size: Width and height in pixels.
        mean: "compute" (over the training images), "ilsvrc" (ImageNet's, from
            ``$PYCAFFE_PRUNE_DATA/ilsvrc12``), or a mean image's file.
        limit: Take only so many images from the head of each list: a sample.
        keep_going: Leave out images that are missing or damaged instead of refusing; the manifest
            names them.
        threads: How many images are worked on at once; default: one for each core. Each thread has
            a process that decodes for it (`data_prep.decoding`).
        force: Build again what is already there.
        console: Where to show progress (default: the standard error stream).

    Returns:
        The manifest, which is also in ``out``.

    Raises:
        DataError: A file is missing, damaged or cannot be downloaded, or ``out`` holds something
            else or cannot be written.
        FormatError: The mean image's file is none.
    """
    console = console or Screen(stderr=True)
    wish = _Wish(out, encoded, size, limit, threads or len(os.sched_getaffinity(0)), keep_going)
    shape = (3, size, size)
    folder = source or _default_source()
    with ExitStack() as stack:
        if folder is None:
            counts = _FULL_COUNTS
            load = functools.partial(_download_and_load, console, wish, stack)
        else:
            files = _local_files(folder, labels)
            lists = image_lists(read_parts(files.labels, files.split))
            counts = {split: len(images) for split, images in lists.items()}
            load = functools.partial(_load, files, wish, stack)

        def load_with_mean() -> Content:
            # The mean first: no download is worth its while without it.
            values = None if mean == COMPUTED else given_mean(mean, shape)
            return replace(load(), mean=values)

        recipe = Recipe(
            name="flowers102",
            source="download" if folder is None else "local files",
            is_sample=limit is not None,
            lmdbs=LMDB_NAMES,
            counts={split: min(count, limit or count) for split, count in counts.items()},
            shape=shape,
            load=load_with_mean,
            encoded=encoded,
            mean_of=mean_of(mean),
            keep_going=keep_going,
        )
        return build_data_set(out, recipe, force=force, console=console)


def _default_source() -> Path | None:
    data = os.environ.get("PYCAFFE_PRUNE_DATA")
    folder = Path(data, "flowers102") if data else None
    return folder if folder is not None and folder.is_dir() else None


def _local_files(source: Path, labels: Path | None) -> _Files:
    beside = source if source.is_dir() else source.parent
    folders = [labels] if labels else [beside, beside.absolute().parent]
    for folder in folders:
        files = _Files(source, folder / LABELS_FILE, folder / SPLIT_FILE)
        if files.labels.is_file() and files.split.is_file():
            return files
    raise DataError(
        f"{folders[0]}: {LABELS_FILE} and {SPLIT_FILE} are not there; put the two into that "
        "folder, or name the one that has them with --labels"
    )


def _download_and_load(console: Console, wish: _Wish, stack: ExitStack) -> Content:
    from data_prep.download import fetch  # a twelfth of a second that most builds do not need

    mirrors = os.environ.get(_MIRRORS_VARIABLE, "").split() or _MIRRORS
    folder = cache_root() / "flowers102"
    try:
        for name in (SPLIT_FILE, LABELS_FILE, _ARCHIVE):
            fetch(
                [f"{mirror.rstrip('/')}/{name}" for mirror in mirrors],
                folder / name,
                functools.partial(_check_original, name),
                console=console,
                limits=limits(_MOST_BYTES[name]),
            )
    except DownloadError as error:
        raise DownloadError(
            f"{error}. Put {_ARCHIVE}, {LABELS_FILE} and {SPLIT_FILE} into a folder and name it "
            f"with --source, or name other mirrors in {_MIRRORS_VARIABLE}."
        ) from error
    files = _Files(folder / _ARCHIVE, folder / LABELS_FILE, folder / SPLIT_FILE)
    return _load(files, wish, stack)


def _check_original(name: str, path: Path) -> None:
    """Raise a `DataError` unless ``path`` is the data set's original file ``name``."""
    if (md5 := _md5(path)) != _MD5[name]:
        raise DataError(f"it has md5 {md5}, {name} has {_MD5[name]}")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, functools.partial(hashlib.md5, usedforsecurity=False))
    return digest.hexdigest()


def _load(files: _Files, wish: _Wish, stack: ExitStack) -> Content:
    """Find the images, and have them worked on as they are asked for; ``stack`` cleans up."""
    parts = read_parts(files.labels, files.split)
    scratch = wish.out / _SCRATCH_NAME
    stack.callback(scratch.unlink, missing_ok=True)
    images = find_images(files.images, scratch)
    lists = {split: listed[: wish.limit] for split, listed in image_lists(parts).items()}
    if not wish.keep_going:
        gaps = {
            split: [image.name for image in listed if image.number not in images]
            for split, listed in lists.items()
        }
        refuse_gaps(wish.out, gaps)
    run: Callable[..., Iterator[Batch]] = map
    decode = _decode_encoded if wish.encoded else _decode_raw
    decoders = Decoders(functools.partial(decode, images), _BATCH, (3, wish.size, wish.size))
    stack.callback(decoders.close)
    if wish.threads > 1:
        pool = ThreadPoolExecutor(wish.threads)
        stack.callback(pool.shutdown, cancel_futures=True)
        run = functools.partial(_in_order, pool, 2 * wish.threads)
    work = functools.partial(_batch, decoders, wish)
    return Content(
        {split: run(work, _cut(listed)) for split, listed in lists.items()},
        list(_warnings(files, parts, images, wish.size)),
        file_bytes=sum(file.size for file in images.values()) if wish.encoded else 0,
    )


def _cut(listed: list[ListedImage]) -> Iterator[_Numbered]:
    numbered = list(enumerate(listed))
    for start in range(0, len(numbered), _BATCH):
        yield numbered[start : start + _BATCH]


def _warnings(
    files: _Files, parts: Parts, images: Mapping[int, ImageFile], size: int
) -> Iterator[str]:
    for path in (files.labels, files.split):
        if (md5 := _md5(path)) != _MD5[path.name]:
            yield f"{path}: not the original {path.name} (md5 {md5})"
    for group in duplicates(images):
        names = " and ".join(f"{images[number].name} ({parts.part_of(number)})" for number in group)
        yield f"{names} are the same file"
    first = images[min(images)]
    with closing(Decoders(functools.partial(_decode_shape, images), 1, (1,))) as decoders:
        (shape,) = decoders([min(images)], np.empty((1, 1), np.uint8))
    if isinstance(shape, DataError):
        return  # it is told of where it is used
    if json.loads(shape) == [size, size]:
        yield (
            f"{first.path}: its images are {size}×{size} already: not the original files, whose "
            "shorter side has 500 pixels"
        )


def _in_order(
    pool: ThreadPoolExecutor,
    ahead: int,
    work: Callable[[_Numbered], Batch],
    items: Iterable[_Numbered],
) -> Iterator[Batch]:
    """Work on several items at once, at most ``ahead`` of them before their turn."""
    pending: deque[Future[Batch]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _batch(decoders: Decoders, wish: _Wish, numbered: _Numbered) -> Batch:
    """Have some images decoded and warped, and make the records that are stored of them."""
    pixels = np.empty((len(numbered), 3, wish.size, wish.size), np.uint8)
    answers = decoders([listed.number for _, listed in numbered], pixels)
    used: list[int] = []
    records: list[Record] = []
    left_out: list[str] = []
    for at, ((place, listed), file) in enumerate(zip(numbered, answers, strict=True)):
        if isinstance(file, DataError):
            left_out.append(listed.name)
            continue
        label = listed.label
        datum = encoded_datum(file, label) if wish.encoded else raw_datum(pixels[at], label)
        # The key has the place in the list, whether or not those before could be stored: so it is
        # in convert_imageset.
        records.append((f"{place:08}_{listed.name}".encode(), datum))
        used.append(at)
    labels = np.array([numbered[at][1].label for at in used], np.int64)
    return Batch(pixels[used] if left_out else pixels, labels, records, left_out)


def _content(images: Mapping[int, ImageFile], number: int) -> bytes:
    if number not in images:
        raise DataError("is missing")
    return images[number].read()


def _decode_raw(images: Mapping[int, ImageFile], number: int, pixels: NDArray[np.uint8]) -> bytes:
    """Put the warped image into ``pixels`` (3 × size × size)."""
    # Into the three planes that it is given: a tenth of the time of NumPy's transposing.
    cv2.split(warp(decode(_content(images, number)), pixels.shape[1]), list(pixels))
    return b""


def _decode_encoded(
    images: Mapping[int, ImageFile], number: int, pixels: NDArray[np.uint8]
) -> bytes:
    """Return the warped image as a JPEG; ``pixels`` become what its reader will see."""
    content = _content(images, number)
    file = jpeg_of(content, decode(content), pixels.shape[1])
    cv2.split(decode(file), list(pixels))
    return file


def _decode_shape(images: Mapping[int, ImageFile], number: int, _: NDArray[np.uint8]) -> bytes:
    """Return the image's height and width."""
    return json.dumps(decode(_content(images, number)).shape[:2]).encode()
