"""The weights that a run begins with: which files, what of each is used, whether it fits."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.job import Job, LoadedWeights, TrainRequest
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import (
    TRAIN,
    LayerParameter,
    NetParameter,
    Phase,
    SolverParameter,
)
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.formats.files import existing_file, sha256_of
from pycaffe_prune.formats.mask import MaskFile, require_fitting_masks
from pycaffe_prune.formats.weights import caffe_weights
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.loading import Copied, copied_layers, new_layers
from pycaffe_prune.net.shapes import Shape, infer_shapes

__all__ = ["beginning", "load_list", "require_fitting_mask", "require_use", "weights_files"]

_WHAT = "a .caffemodel or .caffemodel.h5 to begin with"
_NVIDIA_BLOBS = 5


def weights_files(request: TrainRequest, solver: SolverParameter) -> tuple[Path, ...]:
    """Return the files that a run begins with, in the order in which they are loaded.

    First those of the solver's ``weights`` (`LoadNetWeights` of `src/caffe/solver.cpp`), then those
    of the request, as Caffe's tool does: what comes later overwrites layers of the same names.

    Args:
        request: The request.
        solver: Its solver. ``weights`` are lists, with commas, of paths that are looked up in the
            working directory, then in the solver's folder and its parents.

    Raises:
        FormatError: One of them is not there, or where the solver may have nothing read.
    """
    named = [part.strip() for text in solver.weights for part in text.split(",") if part.strip()]
    own = [_beside(name, request.solver) for name in named]
    beside = Readable.of(request.solver, request.data, request.own, trust=request.trust)
    beside.require(own)
    given = (request.weights, *request.more_weights) if request.weights else ()
    return tuple(existing_file(path, _WHAT).resolve() for path in (*own, *given))


def _beside(name: str, solver_path: Path) -> Path:
    for folder in (Path(), *solver_path.resolve().parents):
        if (folder / name).is_file():
            return folder / name
    raise FormatError(
        f"{solver_path}: begins with the weights '{name}', which are neither here nor beside it"
    )


def load_list(
    net: NetParameter, files: Sequence[Path], inputs: Mapping[str, Shape]
) -> tuple[tuple[LoadedWeights, ...], tuple[str, ...]]:
    """See what of each file a net uses in the phase TRAIN, and that it fits.

    Args:
        net: The net.
        files: As `weights_files` returns them.
        inputs: Shapes of blobs that the prototxt does not tell, as for `infer_shapes`.

    Returns:
        What is copied and left of each file; and the layers that no file fills. Without files the
        latter is empty: then all of them begin with their fillers.

    Raises:
        FormatError: A file is damaged, or of a form that Caffe does not load.
        SurgeryError: As `require_use`.
    """
    loaded = []
    for path in files:
        found = require_use(path, caffe_weights(path), net, TRAIN, inputs)
        loaded.append(
            LoadedWeights(
                file=str(path), sha256=sha256_of(path), copied=found.copied, unused=found.unused
            )
        )
    copied = {name for file in loaded for name in file.copied}
    layers = layers_in_state(net, NetState.of(net, TRAIN))
    return tuple(loaded), new_layers(layers, copied) if files else ()


def beginning(job: Job) -> Iterator[Event]:
    """Yield what a run begins with, for its log: each file, and which layers are in none."""
    for file in job.loaded:
        unused = f"; not in the net: {', '.join(file.unused)}" if file.unused else ""
        yield Event(
            event="weights",
            message=f"{Path(file.file).name}: copied {', '.join(file.copied)}{unused}",
            **file.model_dump(),
        )
    if job.new_layers:
        names = ", ".join(job.new_layers)
        told = f"in no file of weights, filled by their fillers: {names}"
        yield Event(event="weights", message=told, new=job.new_layers)


def require_fitting_mask(
    net: NetParameter, loaded: Sequence[LoadedWeights], mask: MaskFile
) -> None:
    """See that masks are for layers of the net, and of the shapes of the weights.

    Raises:
        SurgeryError: One is not; the sentence names the layer.
    """
    names = {layer.name for layer in net.layer}
    for name, _ in mask.masks:
        if name not in names:
            raise SurgeryError(f"the mask is for layer '{name}', which the net does not have")
    for file in loaded:
        masks = {key: one for key, one in mask.masks.items() if key[0] in file.copied}
        require_fitting_masks(caffe_weights(Path(file.file)), masks)


def require_use(
    path: Path, model: Caffemodel, net: NetParameter, phase: Phase, inputs: Mapping[str, Shape]
) -> Copied:
    """Return what Caffe copies of a file into a net, after seeing that it fits.

    Args:
        path: The file, to begin sentences with.
        model: What is in it.
        net: The net.
        phase: In which the net is used.
        inputs: Shapes of blobs that the prototxt does not tell.

    Raises:
        SurgeryError: The file has no layer of the net, or blobs of another number or shape.
    """
    layers = layers_in_state(net, NetState.of(net, phase))
    found = copied_layers(layers, model)
    if not found.copied:
        raise SurgeryError(
            f"{path}: none of its layers ({', '.join(found.unused) or 'none has weights'}) is in "
            f"the net ({', '.join(new_layers(layers, ()))}); Caffe would train from random values"
        )
    _refuse_nvidias(path, model, found)
    plain = _in_one_state(layers)
    try:
        infer_shapes(plain.layer, inputs)
    except SurgeryError:
        return found  # no fault of the weights: the engine says what is wrong with the net
    try:
        require_fitting(plain, model, inputs, may_lack=[layer.name for layer in layers])
    except SurgeryError as error:
        raise SurgeryError(f"{path}: {error}") from error
    return found


def _in_one_state(layers: Sequence[LayerParameter]) -> NetParameter:
    net = NetParameter(layer=layers)
    for layer in net.layer:
        layer.ClearField("include")
        layer.ClearField("exclude")
    return net


def _refuse_nvidias(path: Path, model: Caffemodel, found: Copied) -> None:
    for name in found.copied:
        layer = model.layer(name)
        if layer.type == "BatchNorm" and len(layer.blobs) == _NVIDIA_BLOBS:
            raise SurgeryError(
                f"{path}: layer '{name}' (BatchNorm) has 5 blobs, those of NVIDIA's Caffe, where "
                "scale and bias are part of it; `caffe-prune convert --to stock` makes of it, in "
                "net and weights alike, a BatchNorm of 3 blobs and a Scale, as BVLC Caffe has them"
            )
