"""Known weights of the Model Zoo: what they are, where they lie, and how to know them again.

Checksums are published ones, never our own. For the BVLC models the sha1 is that of their readme
in the Caffe repository; for VGG-16 and ResNet-50, whose authors published none, it is the one that
OpenCV's and MXNet's download scripts both record. Sizes, and sha256 where given, are those of
OpenVINO's Open Model Zoo. For the Oxford 102 CaffeNet nothing is published: its layers and shapes
are compared with the net's.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from data_prep.download import fetch
from data_prep.download_limits import limits
from pycaffe_prune.convert.classifier import Classifier, replace_classifier
from pycaffe_prune.errors import DataError, PruneError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.share import share_root

__all__ = ["ZOO", "ZooModel", "fetch_weights", "zoo_model", "zoo_net"]


@dataclass(frozen=True)
class ZooModel:
    """One file of the Model Zoo."""

    name: str
    what: str
    """The network, its data, and its reported accuracy."""
    file: str
    """The caffemodel's usual name."""
    urls: tuple[str, ...]
    """Public addresses, the authors' own first."""
    network: str
    """Folder in ``prototxt/`` of the net that belongs to it."""
    size: int | None = None
    """Bytes; None = not published."""
    sha1: str | None = None
    """None = not published."""
    sha256: str | None = None
    """None = not published."""
    classifier: Classifier | None = None
    """Where its classifier is not that of ``network``."""


_MOST_BYTES = 1 << 30  # where the size is not published

_BVLC = "http://dl.caffe.berkeleyvision.org/"
_MXNET = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/caffe/models/"
_ONEDRIVE = "https://onedrive.live.com/download"

ZOO: Sequence[ZooModel] = (
    ZooModel(
        name="caffenet",
        what="CaffeNet on ILSVRC 2012 (BVLC reference model), 57.4 % top-1",
        file="bvlc_reference_caffenet.caffemodel",
        urls=(f"{_BVLC}bvlc_reference_caffenet.caffemodel",),
        network="caffenet",
        size=243_862_418,
        sha1="4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
    ),
    ZooModel(
        name="alexnet",
        what="AlexNet on ILSVRC 2012 (BVLC), 57.1 % top-1",
        file="bvlc_alexnet.caffemodel",
        urls=(
            f"{_BVLC}bvlc_alexnet.caffemodel",
            f"{_MXNET}bvlc_alexnet/bvlc_alexnet.caffemodel",
        ),
        network="alexnet",
        size=243_862_414,
        sha1="9116a64c0fbe4459d18f4bb6b56d647b63920377",
        sha256="4bff209a9837298157915ef50a4831a59636a6ca1a6b8ebacd990c3a5f3053e0",
    ),
    ZooModel(
        name="vgg-16",
        what="VGG-16 on ILSVRC 2012 (Simonyan and Zisserman), 91.9 % top-5, dense",
        file="VGG_ILSVRC_16_layers.caffemodel",
        urls=(
            "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel",
            f"{_MXNET}vgg/VGG_ILSVRC_16_layers.caffemodel",
        ),
        network="vgg_16",
        size=553_432_081,
        sha1="9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",
        sha256="a6196bc498e45ea4cb2637114ae8db9410cf1556fd60a55ae93272371beba197",
    ),
    ZooModel(
        name="googlenet",
        what="GoogLeNet on ILSVRC 2012 (BVLC), 68.7 % top-1",
        file="bvlc_googlenet.caffemodel",
        urls=(
            f"{_BVLC}bvlc_googlenet.caffemodel",
            f"{_MXNET}bvlc_googlenet/bvlc_googlenet.caffemodel",
        ),
        network="googlenet",
        size=53_533_754,
        sha1="405fc5acd08a3bb12de8ee5e23a96bec22f08204",
        sha256="6f7101e3a2183738a7125a0c5021ba82a1feb4228c5ca0924d991b6daf6f6fad",
    ),
    ZooModel(
        name="resnet-50",
        what="ResNet-50 on ILSVRC 2012 (He et al.), 75.3 % top-1",
        file="ResNet-50-model.caffemodel",
        urls=(
            f"{_ONEDRIVE}?cid=4006CBB8476FF777&resid=4006CBB8476FF777%2117895&authkey=%21AAFW2%2DFVoxeVRck",
            f"{_MXNET}resnet/ResNet-50-model.caffemodel",
            "https://deepdetect.com/models/resnet/ResNet-50-model.caffemodel",
        ),
        network="resnet_50",
        size=102_462_397,
        sha1="b7c79ccc21ad0479cddc0dd78b1d20c4d722908d",
        sha256="44ee2b08816cede2b7aaa047888df07dcab52f73399aa1c8bef05a17bfdd4888",
    ),
    ZooModel(
        name="oxford102-caffenet",
        what="CaffeNet fine-tuned to the Oxford 102 flowers (J. Goode), 93.3 % on 1,020 images",
        file="oxford102.caffemodel",
        urls=("https://s3.amazonaws.com/jgoode/oxford102.caffemodel",),
        network="caffenet",
        classifier=Classifier("fc8", "fc8_oxford_102", 102),
    ),
)
"""All that is known."""


def zoo_model(name: str) -> ZooModel:
    """Return the entry called ``name``.

    Raises:
        DataError: There is none; the sentence lists those that there are.
    """
    for model in ZOO:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in ZOO)
    raise DataError(f"'{name}' is not in the table of known Model Zoo files; it has: {known}")


def zoo_net(model: ZooModel) -> NetParameter:
    """Return the deploy net that belongs to the file.

    Raises:
        FormatError: The prototxt that comes with the toolkit is missing.
    """
    net = read_net(share_root() / "prototxt" / model.network / "deploy.prototxt")
    return net if model.classifier is None else replace_classifier(net, model.classifier)


def fetch_weights(
    model: ZooModel, folder: Path, mirrors: Sequence[str] = (), *, console: Console
) -> Path:
    """Download the file into ``folder``, or find it there; check it either way.

    An interrupted download goes on where it stopped.

    Args:
        model: What to fetch.
        folder: Made when missing.
        mirrors: Base addresses to ask first; the file's name is added to each.
        console: Where to show progress.

    Raises:
        DataError: No address delivered the right file (each one's reason is told), or it cannot be
            written.
    """
    given = [f"{mirror.rstrip('/')}/{model.file}" for mirror in mirrors]
    return fetch(
        [*given, *model.urls],
        folder / model.file,
        lambda path: _require_right(model, path),
        console=console,
        limits=limits(_MOST_BYTES if model.size is None else model.size),
    )


def _require_right(model: ZooModel, path: Path) -> None:
    size = path.stat().st_size
    if model.size is not None and size != model.size:
        raise DataError(f"it has {size:,} bytes, {model.file} has {model.size:,}")
    for kind, wanted in (("sha1", model.sha1), ("sha256", model.sha256)):
        if wanted is not None and (found := _checksum(path, kind)) != wanted:
            raise DataError(f"its {kind} is {found}, that of {model.file} is {wanted}")
    if model.sha1 is None:
        try:
            require_fitting(zoo_net(model), read_caffemodel(path))
        except PruneError as error:
            raise DataError(f"it is no {model.file}: {error}") from error


def _checksum(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
