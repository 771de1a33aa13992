"""``caffe-prune convert --from-zoo``: known weights, downloaded and checked."""

from collections.abc import Sequence
from pathlib import Path

from pycaffe_prune.cli.convert.formats import Conversion, Output
from pycaffe_prune.cli.progress import console
from pycaffe_prune.convert.zoo import ZOO, ZooModel, fetch_weights, zoo_model, zoo_net
from pycaffe_prune.errors import DownloadError
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.screen import echo

__all__ = ["fetch_from_zoo", "show_zoo"]


def show_zoo(models: Sequence[ZooModel] = ZOO) -> None:
    """Print what is known of each model."""
    for model in models:
        size = "size not published" if model.size is None else f"{model.size:,} bytes"
        echo(f"{model.name}: {model.what}")
        echo(f"  {model.file}, {size}; net: prototxt/{model.network}/deploy.prototxt")
        if model.classifier is not None:
            new = model.classifier
            echo(f"  with '{new.new}' ({new.num_output} outputs) in place of '{new.old}'")
        for kind, checksum in (("sha1", model.sha1), ("sha256", model.sha256)):
            if checksum is not None:
                echo(f"  {kind} {checksum}")
        if model.sha1 is None:
            echo("  no checksum is published: its layers and shapes are checked instead")
        for url in model.urls:
            echo(f"  {url}")


def fetch_from_zoo(name: str, out: Path, mirrors: Sequence[str]) -> Conversion:
    """Download the weights called ``name`` into ``out``; the net is left to be written."""
    model = zoo_model(name)
    net = zoo_net(model)
    try:
        weights = fetch_weights(model, out, mirrors, console=console)
    except DownloadError as error:
        raise DownloadError(
            f"{error}; give another address with --mirror, or put the file into {out} yourself"
        ) from error
    echo(f"{weights}: {weights.stat().st_size:,} bytes, sha256 {sha256_of(weights)}")
    return Conversion([Output(out / "deploy.prototxt", lambda path: write_prototxt(path, net))])
