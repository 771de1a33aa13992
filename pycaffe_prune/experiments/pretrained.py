"""Trained weights that an experiment begins with: found, checked, cut down to what is copied."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pycaffe_prune.convert.classifier import output_layers
from pycaffe_prune.convert.zoo import zoo_model
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.experiments.settings import WeightsSpec
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.formats.files import existing_file, sha256_of
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.fit import require_fitting

__all__ = ["Pretrained", "copied_by_name", "find_weights", "read_pretrained"]

_ZOO_FOLDERS = (Path("weights"), Path("zoo"))


@dataclass(frozen=True)
class Pretrained:
    """A file of trained weights, in any form that `formats.weights` reads."""

    path: Path
    sha256: str
    """What it holds; part of the keys of all that is trained from it."""


def find_weights(wanted: WeightsSpec | None, toml: Path, given: Path | None) -> Pretrained | None:
    """Return the weights that an experiment begins with; None: random values.

    Args:
        wanted: What its TOML file says.
        toml: That file.
        given: A file that the user named; it takes the place of what the TOML file says.

    Raises:
        FormatError: The file is not there; the sentence says how to get it.
    """
    if given is not None:
        path = existing_file(given, "trained weights to begin with")
    elif wanted is None:
        return None
    else:
        found = next((path for path in _places(wanted, toml) if path.is_file()), None)
        if found is None:
            raise FormatError(f"{toml}: begins with {_remedy(wanted)}")
        path = found
    return Pretrained(path.resolve(), sha256_of(path))


def _places(wanted: WeightsSpec, toml: Path) -> Iterator[Path]:
    if wanted.path is not None:
        yield from (folder / wanted.path for folder in (toml.parent, Path()))
    if wanted.zoo is not None:
        yield from (folder / zoo_model(wanted.zoo).file for folder in _ZOO_FOLDERS)


def _remedy(wanted: WeightsSpec) -> str:
    if wanted.zoo is None:
        return f"the weights '{wanted.path}', which are not there; name them with --weights"
    model = zoo_model(wanted.zoo)
    return (
        f"the weights of {model.what}; get them with `caffe-prune convert --from-zoo "
        f"{wanted.zoo} --out {_ZOO_FOLDERS[0]}`, or name your file {model.file} with --weights"
    )


def read_pretrained(pretrained: Pretrained, net: NetParameter) -> Caffemodel:
    """Return what Caffe would copy from the file into ``net``, as `copied_by_name`.

    Raises:
        FormatError: The file is damaged.
        SurgeryError: As `copied_by_name`.
    """
    try:
        return copied_by_name(net, read_weights(pretrained.path))
    except SurgeryError as error:
        raise SurgeryError(f"{pretrained.path}: {error}") from error


def copied_by_name(net: NetParameter, model: Caffemodel) -> Caffemodel:
    """Return the layers of ``model`` whose names ``net`` has, after seeing that they fit.

    Caffe passes over layers that only one of the two has (`Net::CopyTrainedLayersFrom` of
    `src/caffe/net.cpp`), so a slip in a name leaves a layer at random values, silently. Here only
    the net's output layers may be missing: a new classifier has a new name.

    Raises:
        SurgeryError: Another layer of the net has no weights in ``model``, or some of another
            shape; the sentence names it.
    """
    held = {layer.name for layer in model.layers if layer.blobs}
    new = [name for name in output_layers(net) if name not in held]
    require_fitting(net, model, may_lack=new)
    named = {layer.name for layer in net.layer}
    kept = tuple(layer for layer in model.layers if layer.blobs and layer.name in named)
    return replace(model, layers=kept)
