"""How every data set is built: both LMDBs, the mean image, and the manifest last."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TimeRemainingColumn,
)

from data_prep.lmdb_writer import Batch, StagedLmdb, lmdb_count, staged_lmdb
from data_prep.locks import exclusive
from data_prep.manifest import (
    MANIFEST_NAME,
    DataSetName,
    Manifest,
    Split,
    SplitName,
    load_manifest,
    write_manifest,
)
from data_prep.mean import TRAINING_IMAGES, MeanImage
from pycaffe_prune import __version__
from pycaffe_prune.errors import DataError
from pycaffe_prune.formats.files import sha256_of, write_text
from pycaffe_prune.formats.mean import write_mean
from pycaffe_prune.screen import PlainColumn

__all__ = ["Content", "Recipe", "build_data_set", "in_batches", "refuse_gaps"]

_BATCH = 1000
_MOST_NAMES = 20  # in a sentence; the manifest has them all
_MEAN_NAME = "mean.binaryproto"


@dataclass(frozen=True)
class Content:
    """What a recipe loads.

    Attributes:
        splits: The images of each split.
        warnings: What was unusual about the source.
        file_bytes: Bytes of all image files that may be stored as they are.
        mean: The mean image, where it is not to be computed: float32, of the recipe's shape.
    """

    splits: Mapping[SplitName, Iterable[Batch]]
    warnings: list[str] = field(default_factory=list)
    file_bytes: int = 0
    mean: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Recipe:
    """All that `build_data_set` needs to know.

    Attributes:
        name: The data set.
        source: Where it comes from, in words.
        is_sample: Whether it is a stand-in for a real data set; one with gaps is in any case.
        lmdbs: Folder name of each split's LMDB, in the order in which they are built.
        counts: Images in each split.
        shape: Channels, height and width of every image.
        load: Reads the source; called only when there is something to build.
        encoded: Whether the records hold image files, not pixels.
        mean_of: The images whose mean it is, in words.
        keep_going: Whether to build the set without images that are missing or damaged.
        originals: The checksum that each split's LMDB has if the source is the original.
        texts: Text files that belong to the set beside its manifest, by name.
        require_same: Raises a `DataError` if the finished set in the folder differs from what the
            recipe makes in a way that its manifest does not tell.
    """

    name: DataSetName
    source: str
    is_sample: bool
    lmdbs: Mapping[SplitName, str]
    counts: Mapping[SplitName, int]
    shape: tuple[int, int, int]
    load: Callable[[], Content]
    encoded: bool = False
    mean_of: str = TRAINING_IMAGES
    keep_going: bool = False
    originals: Mapping[SplitName, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    require_same: Callable[[], None] | None = None


def in_batches(images: NDArray[np.uint8], labels: NDArray[np.integer]) -> Iterator[Batch]:
    """Cut arrays (images: uint8, count × channels × height × width) into batches of 1000."""
    for start in range(0, len(images), _BATCH):
        yield Batch(images[start : start + _BATCH], labels[start : start + _BATCH])


def build_data_set(out: Path, recipe: Recipe, *, force: bool, console: Console) -> Manifest:
    """Build a data set in the folder ``out``, or find it already built there.

    Nothing gets its final name before both LMDBs are complete, and the manifest comes last: a
    folder with a manifest is a finished data set, whatever happened on the way. What a killed build
    put in place is marked as its own, and the next one replaces it. Processes that build in the
    same folder wait for each other.

    Args:
        out: The data set's folder; made when missing.
        recipe: What to build.
        force: Build again what is already there.
        console: Where to show progress.

    Raises:
        DataError: The source is at fault, ``out`` holds something else, or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: this folder cannot be made ({error.strerror})") from error
    with exclusive(out / ".build.lock", console):
        if force:
            _refuse_another_set(out, recipe)
        elif (finished := _finished(out, recipe)) is not None:
            console.print(f"{out}: {recipe.name} is already built", soft_wrap=True)
            return finished
        return _build(out, recipe, recipe.load(), console)


def _refuse_another_set(out: Path, recipe: Recipe) -> None:
    """Raise a `DataError` if ``out`` holds a data set of another name."""
    try:
        found = load_manifest(out).name
    except DataError:
        return  # none, or damaged beyond use: --force is there to replace it
    if found != recipe.name:
        raise DataError(
            f"{out}: holds the data set {found}, not {recipe.name}; choose another --out, "
            "or remove that folder first"
        )


def _finished(out: Path, recipe: Recipe) -> Manifest | None:
    """Return the manifest if ``out`` holds what the recipe makes, None if it is to be built.

    Raises:
        DataError: ``out`` holds something that must not be overwritten unasked.
    """
    if not (out / MANIFEST_NAME).exists():
        if _marker(out, recipe).exists():
            return None
        for name in recipe.lmdbs.values():
            if (out / name).exists():
                raise DataError(
                    f"{out / name}: is there, but no {MANIFEST_NAME} beside it says what it is; "
                    "choose another --out, or give --force to replace it"
                )
        return None
    _refuse_another_set(out, recipe)
    manifest = load_manifest(out)
    if recipe.require_same is not None:
        recipe.require_same()
    found = {name: split.count + len(split.left_out) for name, split in manifest.splits.items()}
    other = "choose another --out, or give --force to replace it"
    if found != dict(recipe.counts):
        raise DataError(
            f"{out}: holds {recipe.name} with {_text(found)} images, but the source has "
            f"{_text(recipe.counts)}; {other}"
        )
    shapes = {split.shape for split in manifest.splits.values()}
    has = _kind(manifest.encoded, shapes, manifest.mean_of)
    wanted = _kind(recipe.encoded, {recipe.shape}, recipe.mean_of)
    if has != wanted:
        raise DataError(f"{out}: holds {recipe.name} as {has}, not as {wanted}; {other}")
    return manifest if _is_whole(out, manifest) else None


def _marker(out: Path, recipe: Recipe) -> Path:
    """The file that says whose files lie in ``out`` while they are being put in place."""
    return out / f".building-{recipe.name}"


def _kind(encoded: bool, shapes: Iterable[tuple[int, int, int]], mean_of: str) -> str:
    sizes = " and ".join("×".join(map(str, shape)) for shape in sorted(shapes))
    return f"{'encoded' if encoded else 'raw'} images of {sizes} with the mean of {mean_of}"


def _is_whole(out: Path, manifest: Manifest) -> bool:
    """Whether everything that the manifest names is there and has the right size."""
    try:
        counts_hold = all(
            lmdb_count(out / split.lmdb) == split.count for split in manifest.splits.values()
        )
    except DataError:
        return False
    return counts_hold and (out / manifest.mean).is_file()


def _build(out: Path, recipe: Recipe, content: Content, console: Console) -> Manifest:
    mean = MeanImage(recipe.shape)
    left_out: dict[SplitName, list[str]] = {name: [] for name in recipe.lmdbs}
    labels: dict[SplitName, list[NDArray[np.integer]]] = {name: [] for name in recipe.lmdbs}

    def watched(name: SplitName) -> Iterator[Batch]:
        for batch in content.splits[name]:
            labels[name].append(batch.labels)
            left_out[name] += batch.left_out
            if name == "train" and content.mean is None:
                mean.add(batch.images)
            yield batch

    with ExitStack() as stack:
        progress = stack.enter_context(_progress(console))
        staged: dict[SplitName, StagedLmdb] = {}
        for name, lmdb_name in recipe.lmdbs.items():
            bar = progress.add_task(f"{recipe.name} {name}", total=recipe.counts[name])
            staged[name] = stack.enter_context(
                staged_lmdb(
                    out / lmdb_name,
                    watched(name),
                    count=recipe.counts[name],
                    shape=recipe.shape,
                    file_bytes=content.file_bytes,
                    on_progress=_advancing(progress, bar),
                )
            )
        if not recipe.keep_going:
            refuse_gaps(out, left_out)
        # From here until the new manifest is there, the folder is not a finished data set.
        try:
            _marker(out, recipe).touch()
            (out / MANIFEST_NAME).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{out}: cannot be written to ({error.strerror})") from error
        for text_name, text in recipe.texts.items():
            write_text(out / text_name, text)
        write_mean(out / _MEAN_NAME, mean.value() if content.mean is None else content.mean)
        for lmdb in staged.values():
            lmdb.publish()
    manifest = Manifest(
        name=recipe.name,
        source=recipe.source,
        is_sample=recipe.is_sample or any(left_out.values()),
        splits={
            name: Split(
                lmdb=recipe.lmdbs[name],
                count=lmdb.count,
                label_histogram=np.bincount(np.concatenate(labels[name])).tolist(),
                shape=recipe.shape,
                sha256=lmdb.sha256,
                left_out=left_out[name],
            )
            for name, lmdb in staged.items()
        },
        encoded=recipe.encoded,
        mean=_MEAN_NAME,
        mean_of=recipe.mean_of,
        mean_sha256=sha256_of(out / _MEAN_NAME),
        warnings=[*content.warnings, *_unlike_originals(recipe, staged), *_gaps(left_out)],
        created_by=f"pycaffe-prune {__version__}",
    )
    write_manifest(out, manifest)
    _marker(out, recipe).unlink()
    return manifest


def _unlike_originals(recipe: Recipe, staged: Mapping[SplitName, StagedLmdb]) -> list[str]:
    return [
        f"{recipe.lmdbs[name]}: not the content of the original {recipe.name} files"
        for name, sha256 in recipe.originals.items()
        if staged[name].sha256 != sha256
    ]


def _gaps(left_out: Mapping[SplitName, Sequence[str]]) -> list[str]:
    """Return a sentence for each split that lacks images: how many, and the first ones' names."""
    return [
        f"{len(names)} {split} images are missing or damaged: {', '.join(names[:_MOST_NAMES])}"
        + (", …" if len(names) > _MOST_NAMES else "")
        for split, names in left_out.items()
        if names
    ]


def refuse_gaps(out: Path, left_out: Mapping[SplitName, Sequence[str]]) -> None:
    """Raise a `DataError` if images are missing that belong in the data set ``out``."""
    if gaps := _gaps(left_out):
        raise DataError(
            f"{out}: was not built: {'; '.join(gaps)}. Get the source again, or give --keep-going "
            "to build the set without them."
        )


def _progress(console: Console) -> Progress:
    return Progress(
        PlainColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _advancing(progress: Progress, bar: TaskID) -> Callable[[int], None]:
    return lambda done: progress.update(bar, completed=done)


def _text(counts: Mapping[SplitName, int]) -> str:
    return " and ".join(f"{count} {name}" for name, count in counts.items())
