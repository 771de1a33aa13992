"""Some classes of a data set as a data set of its own, their labels counted anew from 0."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from rich.console import Console

from data_prep.dataset import Content, Recipe, build_data_set
from data_prep.lmdb_writer import Batch
from data_prep.manifest import Manifest, SplitName, load_manifest
from data_prep.mean import TRAINING_IMAGES
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.caffe_pb2 import Datum
from pycaffe_prune.formats.datum import Pixels, decode_datum
from pycaffe_prune.formats.lmdb_file import LmdbFile
from pycaffe_prune.formats.mean import read_mean
from pycaffe_prune.screen import Screen

__all__ = [
    "Subset",
    "build_subset",
    "classes_in",
    "drawn_classes",
    "other_classes",
    "parsed_classes",
    "shown_classes",
]

_SETTINGS = "subset.json"
_SPLITS: tuple[SplitName, ...] = get_args(SplitName)
_AT_ONCE = 256
_MOST_CLASSES = 100_000


@dataclass(frozen=True)
class Subset:
    """Which part of a data set is wanted.

    Attributes:
        source: The data set's folder.
        classes: Labels in the source; the smallest becomes label 0.
        pool: None: each split of the subset is that of the source. A number: both splits are put
            together, and so many images, evenly spread over the classes, are the test set.
    """

    source: Path
    classes: Sequence[int]
    pool: int | None = None


@dataclass(frozen=True)
class _Settings:
    """What a subset depends on (``subset.json`` beside its manifest)."""

    source: str
    images: Mapping[SplitName, str]
    """The checksum of each of the source's LMDBs."""
    classes: Sequence[int]
    """The source's label of each label."""
    pool: int | None

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class _Place:
    """An image of the source."""

    split: SplitName
    number: int
    label: int
    """In the subset."""


def parsed_classes(text: str) -> list[int]:
    """Return the labels of a list such as ``0-4,7``, in rising order.

    Raises:
        DataError: It is no such list, or names a class twice.
    """
    found: list[int] = []
    for part in text.split(","):
        ends = part.strip().split("-")
        if not (1 <= len(ends) <= 2 and all(end.isdecimal() and len(end) < 10 for end in ends)):
            raise DataError(f"'{text}' is no list of classes; one looks like 0-4,7")
        first, last = int(ends[0]), int(ends[-1])
        if not first <= last < first + _MOST_CLASSES:
            raise DataError(f"'{text}': {part.strip()} does not lead from a class up to another")
        found += range(first, last + 1)
    if twice := sorted({label for label in found if found.count(label) > 1}):
        raise DataError(f"'{text}' names class {twice[0]} twice")
    return sorted(found)


def shown_classes(classes: Iterable[int]) -> str:
    """Return the list that `parsed_classes` reads."""
    runs = groupby(enumerate(sorted(classes)), lambda pair: pair[1] - pair[0])
    parts = [[label for _, label in run] for _, run in runs]
    return ",".join(f"{run[0]}-{run[-1]}" if run[1:] else f"{run[0]}" for run in parts)


def classes_in(source: Path) -> list[int]:
    """Return the labels of a data set's images, in rising order.

    Raises:
        DataError: There is no finished data set.
    """
    counts = [split.label_histogram for split in load_manifest(source).splits.values()]
    return sorted({label for count in counts for label in np.flatnonzero(count).tolist()})


def drawn_classes(there: Sequence[int], count: int, seed: int) -> list[int]:
    """Return ``count`` of these classes, drawn at random, in rising order.

    They are the first of NumPy's ``RandomState(seed).permutation``, which gives the same order in
    all versions.

    Raises:
        DataError: There are not more than that.
    """
    if not 0 < count < len(there):
        raise DataError(f"{count} of {len(there)} classes cannot be drawn so that some stay")
    return sorted(np.random.RandomState(seed).permutation(np.array(there))[:count].tolist())


def other_classes(there: Sequence[int], classes: Sequence[int]) -> list[int]:
    """Return the classes that are there beside ``classes``.

    Raises:
        DataError: One of ``classes`` is not there, or nothing else is.
    """
    if missing := sorted(set(classes) - set(there)):
        raise DataError(f"there is no class {missing[0]}; there are {shown_classes(there)}")
    if not (others := sorted(set(there) - set(classes))):
        raise DataError(f"there are no classes beside {shown_classes(classes)}")
    return others


def build_subset(
    out: Path, wanted: Subset, *, force: bool = False, console: Console | None = None
) -> Manifest:
    """Build LMDBs of some classes of a data set in the folder ``out``.

    Records keep their order and all that they hold but the label. The LMDBs are named like the
    source's, so that the same prototxts read them. A mean image over the training images is
    computed anew, a given one stays.

    Args:
        out: The subset's folder; made when missing.
        wanted: Which part.
        force: Build again what is already there.
        console: Where to show progress (default: the standard error stream).

    Returns:
        The manifest, which is also in ``out``; beside it ``subset.json`` tells the classes.

    Raises:
        DataError: The source is missing or damaged, a class is not in it, or ``out`` holds
            something else or cannot be written.
    """
    source = load_manifest(wanted.source)
    if out.resolve() == wanted.source.resolve():
        raise DataError(f"{out}: is the source itself; choose another --out")
    lmdbs = {name: wanted.source / source.splits[name].lmdb for name in _SPLITS}
    surveys = {name: _survey(path) for name, path in lmdbs.items()}
    classes = sorted(wanted.classes)
    chosen = _chosen({name: labels for name, (labels, _) in surveys.items()}, classes, wanted)
    settings = _Settings(
        source=source.name,
        images={name: sha256 for name, (_, sha256) in surveys.items()},
        classes=classes,
        pool=wanted.pool,
    )
    computed = source.mean_of == TRAINING_IMAGES

    def load() -> Content:
        return Content(
            {name: _batches(lmdbs, places) for name, places in chosen.items()},
            warnings=list(source.warnings),
            file_bytes=sum((path / "data.mdb").stat().st_size for path in lmdbs.values()),
            mean=None if computed else read_mean(wanted.source / source.mean),
        )

    recipe = Recipe(
        name="subset",
        source=f"classes {shown_classes(classes)} of {source.name} ({source.source})"
        + ("" if wanted.pool is None else ", both splits put together"),
        is_sample=source.is_sample,
        lmdbs={name: path.name for name, path in lmdbs.items()},
        counts={name: len(places) for name, places in chosen.items()},
        shape=source.splits["train"].shape,
        load=load,
        encoded=source.encoded,
        mean_of=source.mean_of,
        texts={_SETTINGS: settings.text()},
        require_same=lambda: _require_same(out, settings),
    )
    return build_data_set(out, recipe, force=force, console=console or Screen(stderr=True))


def _survey(path: Path) -> tuple[list[int], str]:
    """The label of each record, and the checksum over all (`lmdb_writer.lmdb_content_checksum`)."""
    digest, labels = hashlib.sha256(), []
    with LmdbFile(path) as database:
        for key, value in database.records():
            digest.update(key)
            digest.update(value)
            labels.append(_datum(value, path, key).label)
    return labels, digest.hexdigest()


def _chosen(
    labels: Mapping[SplitName, Sequence[int]], classes: Sequence[int], wanted: Subset
) -> dict[SplitName, list[_Place]]:
    """The images of each split of the subset, in the source's order."""
    names = {label: new for new, label in enumerate(classes)}
    found = [
        _Place(split, number, names[label])
        for split in _SPLITS
        for number, label in enumerate(labels[split])
        if label in names
    ]
    _require_all(found, labels, classes, wanted)
    if wanted.pool is None:
        return {split: [place for place in found if place.split == split] for split in _SPLITS}
    if not 0 < wanted.pool < len(found):
        raise DataError(
            f"{wanted.source}: {wanted.pool:,} of the {len(found):,} images of these classes "
            "cannot be held out"
        )
    by_class = sorted(range(len(found)), key=lambda at: found[at].label)
    held = {
        at
        for rank, at in enumerate(by_class)
        if rank * wanted.pool // len(found) != (rank + 1) * wanted.pool // len(found)
    }
    return {
        "train": [place for at, place in enumerate(found) if at not in held],
        "test": [place for at, place in enumerate(found) if at in held],
    }


def _require_all(
    found: Sequence[_Place],
    labels: Mapping[SplitName, Sequence[int]],
    classes: Sequence[int],
    wanted: Subset,
) -> None:
    """Refuse a class without images, and splits that would be empty."""
    splits = _SPLITS if wanted.pool is None else (None,)
    for split in splits:
        had = {place.label for place in found if split in (None, place.split)}
        if missing := [label for new, label in enumerate(classes) if new not in had]:
            there = shown_classes({label for split in _SPLITS for label in labels[split]})
            where = "" if split is None else f" in its {split} images"
            raise DataError(
                f"{wanted.source}: there is no class {missing[0]}{where}; it has the classes "
                f"{there}"
            )


def _batches(lmdbs: Mapping[SplitName, Path], places: Sequence[_Place]) -> Iterator[Batch]:
    coming = _images(lmdbs, places)
    first = 0
    while part := list(islice(coming, _AT_ONCE)):
        images: list[NDArray[Any]] = [pixels for pixels, _ in part]
        yield Batch(
            np.stack(images),
            np.array([datum.label for _, datum in part]),
            [
                (b"%08d" % number, datum.SerializeToString())
                for number, (_, datum) in enumerate(part, first)
            ],
        )
        first += len(part)


def _images(
    lmdbs: Mapping[SplitName, Path], places: Sequence[_Place]
) -> Iterator[tuple[Pixels, Datum]]:
    """Yield the pixels of each image, for the mean, and its record with the subset's label."""
    for split, path in lmdbs.items():
        labels = {place.number: place.label for place in places if place.split == split}
        with LmdbFile(path) as database:
            for number, (key, value) in enumerate(database.records()):
                if number in labels:
                    datum = _datum(value, path, key)
                    datum.label = labels[number]
                    yield decode_datum(value, f"{path}: record {key!r}").pixels, datum


def _datum(value: bytes, path: Path, key: bytes) -> Datum:
    try:
        return Datum.FromString(value)
    except DecodeError as error:
        raise DataError(f"{path}: record {key!r} is not a Datum ({error})") from error


def _require_same(out: Path, settings: _Settings) -> None:
    """Refuse a finished subset of other classes, or of another source."""
    path = out / _SETTINGS
    other = "choose another --out, or give --force to replace it"
    try:
        earlier = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: does not tell what this subset is; {other}") from error
    now = json.loads(settings.text())
    if not isinstance(earlier, dict):
        raise DataError(f"{path}: does not tell what this subset is; {other}")
    if differing := [name for name in now if earlier.get(name) != now[name]]:
        raise DataError(f"{out}: holds a subset with other {', '.join(differing)}; {other}")
