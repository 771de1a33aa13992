"""``caffe-prune data``: build the LMDBs of a data set."""

from pathlib import Path

import click

from data_prep.manifest import Manifest
from pycaffe_prune.screen import echo

__all__ = ["data"]

_MOST_LABELS = 20  # to be shown one by one; the manifest has them all

_out = click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the data set; made when missing.",
)
_force = click.option("--force", is_flag=True, help="Build again what is already there.")


@click.group()
def data() -> None:
    """Build the LMDBs of a data set.

    Every data set is a folder with a training and a test LMDB that Caffe's Data layer reads, the
    mean image, and manifest.json with counts and checksums, which is written last: where it is,
    the data set is complete. A data set that is already there is not built again.

    \b
    Examples:
      caffe-prune data mnist --out data/mnist
      caffe-prune data mnist --out data/mnist --source ~/Downloads/mnist
      caffe-prune data flowers102 --out data/flowers102
      caffe-prune data digits --out data/digits
      caffe-prune data subset --source data/mnist --classes 0-4 --out data/mnist-0-4
      caffe-prune data verify data/mnist
    """


@data.command()
@_out
@click.option(
    "--source",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with MNIST's four files, packed with gzip or not.",
)
@click.option(
    "--hold-out",
    default=0,
    metavar="N",
    type=click.IntRange(0),
    help="The last N training images are the test set, to choose settings on; MNIST's own is not.",
)
@_force
def mnist(out: Path, source: Path | None, hold_out: int, force: bool) -> None:
    """Build MNIST: 60,000 training and 10,000 test images of 28×28.

    Without --source the four files are taken from $PYCAFFE_PRUNE_DATA/mnist, where that folder
    is there, or downloaded and checked. PYCAFFE_PRUNE_MNIST_MIRRORS (base URLs with spaces
    between) names other mirrors, PYCAFFE_PRUNE_CACHE another place to keep downloads.

    \b
    Examples:
      caffe-prune data mnist --out data/mnist
      caffe-prune data mnist --out data/mnist --source ~/Downloads/mnist --force
      caffe-prune data mnist --out data/mnist-held-out --hold-out 5000
    """
    from data_prep.mnist import build_mnist

    _show(build_mnist(out, source, hold_out=hold_out, force=force), out)


@data.command()
@_out
@click.option(
    "--source",
    metavar="DIR|TAR",
    type=click.Path(exists=True, path_type=Path),
    help="Folder or archive of image_NNNNN.jpg.",
)
@click.option(
    "--labels",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of imagelabels.mat and setid.mat, where they are not beside the images.",
)
@click.option(
    "--encoded", is_flag=True, help="Store JPEG files instead of pixels: a tenth of the size."
)
@click.option(
    "--size",
    default=256,
    show_default=True,
    type=click.IntRange(1, 4096),
    help="Width and height to which the images are warped.",
)
@click.option(
    "--mean",
    default="compute",
    show_default=True,
    metavar="compute|ilsvrc|FILE",
    help="Mean image: over the training images, of ImageNet, or a file's (.binaryproto, .npy).",
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Take only N images of each split: a sample, for trying things out.",
)
@click.option(
    "--keep-going", is_flag=True, help="Leave out images that are missing or damaged, by name."
)
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(min=1),
    help="Images to work on at once (default: one for each core).",
)
@_force
def flowers102(
    out: Path,
    source: Path | None,
    labels: Path | None,
    encoded: bool,
    size: int,
    mean: str,
    limit: int | None,
    keep_going: bool,
    threads: int | None,
    force: bool,
) -> None:
    """Build Oxford 102 category flowers: 6,149 training and 1,020 test images of 256×256.

    As in the paper the official test part is the training set, and the training part the test
    set. Images and LMDBs are what Caffe's convert_imageset makes of the Model Zoo recipe's lists.

    Without --source the files are taken from $PYCAFFE_PRUNE_DATA/flowers102, where that folder is
    there, or downloaded (345 MB) and checked. PYCAFFE_PRUNE_FLOWERS_MIRRORS (base URLs with
    spaces between) names other mirrors, PYCAFFE_PRUNE_CACHE another place to keep downloads.

    \b
    Examples:
      caffe-prune data flowers102 --out data/flowers102
      caffe-prune data flowers102 --out data/flowers102 --source 102flowers.tgz --encoded
      caffe-prune data flowers102 --out data/few --limit 50 --mean ilsvrc
    """
    from data_prep.flowers102 import build_flowers102

    manifest = build_flowers102(
        out,
        source,
        labels=labels,
        encoded=encoded,
        size=size,
        mean=mean,
        limit=limit,
        keep_going=keep_going,
        threads=threads,
        force=force,
    )
    _show(manifest, out)


@data.command()
@_out
@_force
def digits(out: Path, force: bool) -> None:
    """Build a sample in MNIST's shape from scikit-learn's 1,797 digits, without a download.

    Good for trying things out; accuracies measured with it are not MNIST's.

    \b
    Example:
      caffe-prune data digits --out data/digits
    """
    from data_prep.digits import build_digits

    _show(build_digits(out, force=force), out)


@data.command()
@_out
@click.option(
    "--source",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the data set.",
)
@click.option("--classes", metavar="LIST", help="Labels there, such as 0-4,7.")
@click.option(
    "--draw", metavar="N", type=click.IntRange(1), help="Instead: so many, drawn by --seed."
)
@click.option(
    "--seed", metavar="N", type=click.IntRange(0, 2**32 - 1), help="Tells which --draw draws."
)
@click.option("--others", is_flag=True, help="All classes but those.")
@click.option(
    "--pool",
    metavar="N",
    type=click.IntRange(1),
    help="Put both splits together, and make N images, spread over the classes, the test set.",
)
@_force
def subset(
    out: Path,
    source: Path,
    classes: str | None,
    draw: int | None,
    seed: int | None,
    others: bool,
    pool: int | None,
    force: bool,
) -> None:
    """Build a data set of some classes of another one.

    Labels are counted anew from 0, in the order of the old ones; subset.json tells which is which.
    Images, their order and the LMDBs' names stay.

    \b
    Examples:
      caffe-prune data subset --source data/mnist --classes 0-4 --out data/mnist-0-4
      caffe-prune data subset --source data/mnist --classes 0-4 --others --out data/mnist-5-9
      caffe-prune data subset --source data/features --draw 20 --seed 18 --out data/flowers-20
      caffe-prune data subset --source data/features --draw 20 --seed 18 --others --pool 500 \\
          --out data/flowers-82
    """
    from data_prep.subset import (
        Subset,
        build_subset,
        classes_in,
        drawn_classes,
        other_classes,
        parsed_classes,
    )

    there = classes_in(source)
    if draw is not None and seed is not None and classes is None:
        chosen = drawn_classes(there, draw, seed)
    elif classes is not None and draw is None and seed is None:
        chosen = parsed_classes(classes)
    else:
        raise click.UsageError("give either --classes, or --draw and --seed")
    chosen = other_classes(there, chosen) if others else chosen
    _show(build_subset(out, Subset(source, chosen, pool), force=force), out)
    echo(f"class of the source for each label: {' '.join(map(str, chosen))}")


@data.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def verify(folder: Path) -> None:
    """Count and checksum a built data set again, against its manifest.

    \b
    Example:
      caffe-prune data verify data/mnist
    """
    from data_prep.manifest import verify_manifest

    _show(verify_manifest(folder), folder)
    echo("all is as the manifest says")


def _show(manifest: Manifest, out: Path) -> None:
    kind = "encoded " if manifest.encoded else ""
    sample = " (a sample, not the real data set)" if manifest.is_sample else ""
    echo(f"{manifest.name} in {out}{sample}, source: {manifest.source}")
    for name, split in manifest.splits.items():
        shape = "×".join(str(size) for size in split.shape)
        echo(f"{name:<5} {split.count} {kind}images of {shape} in {split.lmdb}")
        echo(f"      labels {_histogram(split.label_histogram)}")
    echo(f"mean  {manifest.mean}, of {manifest.mean_of}")
    for warning in manifest.warnings:
        echo(f"warning: {warning}", err=True)


def _histogram(counts: list[int]) -> str:
    if len(counts) > _MOST_LABELS:
        return f"0 to {len(counts) - 1}, {min(counts)} to {max(counts)} images each"
    return " ".join(f"{label}:{count}" for label, count in enumerate(counts))
