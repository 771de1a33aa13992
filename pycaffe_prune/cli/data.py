"""``caffe-prune data``: build the LMDBs of a data set."""

from pathlib import Path

import click

from data_prep.manifest import Manifest

__all__ = ["data"]

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
      caffe-prune data digits --out data/digits
    """


@data.command()
@_out
@click.option(
    "--source",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with MNIST's four files, packed with gzip or not.",
)
@_force
def mnist(out: Path, source: Path | None, force: bool) -> None:
    """Build MNIST: 60,000 training and 10,000 test images of 28×28.

    Without --source the four files are taken from $PYCAFFE_PRUNE_DATA/mnist, where that folder
    is there, or downloaded and checked. PYCAFFE_PRUNE_MNIST_MIRRORS (base URLs with spaces
    between) names other mirrors, PYCAFFE_PRUNE_CACHE another place to keep downloads.

    \b
    Examples:
      caffe-prune data mnist --out data/mnist
      caffe-prune data mnist --out data/mnist --source ~/Downloads/mnist --force
    """
    from data_prep.mnist import build_mnist

    _show(build_mnist(out, source, force=force), out)


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


def _show(manifest: Manifest, out: Path) -> None:
    sample = " (a sample, not the real data set)" if manifest.is_sample else ""
    click.echo(f"{manifest.name} in {out}{sample}, source: {manifest.source}")
    for name, split in manifest.splits.items():
        shape = "×".join(str(size) for size in split.shape)
        histogram = " ".join(
            f"{label}:{count}" for label, count in enumerate(split.label_histogram)
        )
        click.echo(f"{name:<5} {split.count} images of {shape} in {split.lmdb}")
        click.echo(f"      labels {histogram}")
    click.echo(f"mean  {manifest.mean}")
    for warning in manifest.warnings:
        click.echo(f"warning: {warning}", err=True)
