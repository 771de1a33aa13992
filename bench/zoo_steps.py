"""What `zoo_sweep.py` tries on one net: commands of caffe-prune, and weights where it has none."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.cli import cli
from pycaffe_prune.convert.definitions import LEARNING
from pycaffe_prune.errors import EngineError, PruneError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, Layer, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.inference import input_shapes, output_blobs
from pycaffe_prune.net.shapes import Shape, infer_shapes

__all__ = ["NET_STEPS", "WEIGHT_STEPS", "Case", "WrongAnswerError"]

CHANNELS, SIZES = (3, 1), (224, 227, 28, 32, 64, 96, 112, 299, 300, 321)
"""Of data blobs whose shape no file tells: the first that the weights fit."""
RATIO, UNITS = "0.5", "0.3"


class WrongAnswerError(Exception):
    """A command said that all is well, and it is not."""


class LeftOutError(Exception):
    """A step that cannot be tried: one before it was refused, or the net is too large."""


@dataclass(frozen=True)
class Case:
    """One file of the zoo, and the folder in which its steps work."""

    path: Path
    work: Path
    models: tuple[Path, ...] = ()
    """Caffemodels of which one may fit the net; if none does, random weights are made."""
    most_values: int = 100_000_000

    @property
    def filled(self) -> Path:
        """The weights that steps use: a link to those found, or random ones."""
        return self.work / "filled.caffemodel"

    @property
    def shapes(self) -> list[str]:
        """``--input-shape`` for the data blobs that the net does not tell."""
        inputs = self.work / "inputs.json"
        told = json.loads(inputs.read_text()) if inputs.is_file() else {}
        return [word for name, text in told.items() for word in ("--input-shape", f"{name}={text}")]


def caffe_prune(*arguments: object) -> None:
    """Run the command line in this process; what it raises comes through."""
    cli.main([str(word) for word in arguments], "caffe-prune", standalone_mode=False)


def _inspect(case: Case) -> None:
    caffe_prune("inspect", case.path)


def _inspect_train(case: Case) -> None:
    caffe_prune("inspect", case.path, "--phase", "train", "--json")


def _rewrite(case: Case) -> None:
    """A net that is written is the net that was read."""
    out = case.work / "again.prototxt"
    caffe_prune("convert", case.path, "--to", "prototxt", "--out", out)
    if read_net(out) != read_net(case.path):
        raise WrongAnswerError("the net that was written is not the one that was read")


def _fill(case: Case) -> None:
    """Find the shapes of the inputs, and make random weights where there are none."""
    net = read_net(case.path)
    found = fitting_weights(case, net)
    inputs = guessed_inputs(net, found)
    told = {name: "x".join(map(str, shape)) for name, shape in inputs.items()}
    (case.work / "inputs.json").write_text(json.dumps(told))
    if found is None:
        write_caffemodel(case.filled, random_weights(net, inputs, case.most_values))
    else:
        case.filled.symlink_to(found)


def fitting_weights(case: Case, net: NetParameter) -> Path | None:
    """Return the weights that fit the net, of the nearest folder first; None: there are none."""
    names = {layer.name for layer in net.layer}

    def distance(path: Path) -> int:
        return len(path.parts) - len(Path(os.path.commonpath([path, case.path])).parts)

    for path in sorted(case.models, key=distance):
        with contextlib.suppress(PruneError):
            model = read_weights(path)
            if {layer.name for layer in model.layers if layer.blobs} <= names:
                require_fitting(net, model)
                return path
    return None


def guessed_inputs(net: NetParameter, weights: Path | None) -> dict[str, Shape]:
    """The shapes of data blobs that the TEST net reads and does not tell."""
    unknown = [
        name for name, shape in input_shapes(net, output_blobs(net), {}).items() if shape is None
    ]
    crops = [layer.transform_param.crop_size for layer in net.layer]
    sizes = dict.fromkeys((*filter(None, crops), *SIZES))
    guesses = [
        dict.fromkeys(unknown, (1, channels, size, size)) for channels in CHANNELS for size in sizes
    ]
    if weights is not None and unknown:
        model = read_weights(weights)
        for guess in guesses:
            with contextlib.suppress(PruneError):
                require_fitting(net, model, guess)
                return guess
    return guesses[0]


def random_weights(net: NetParameter, inputs: Mapping[str, Shape], most: int) -> Caffemodel:
    """Return weights of the TEST net that keep values of one size from layer to layer.

    Raises:
        LeftOutError: They would be more than ``most`` values.
        SurgeryError: A layer's shapes are not known.
    """
    layers = layers_in_state(net, NetState.of(net, TEST))
    shapes = infer_shapes(layers, inputs)
    for layer, around in zip(layers, shapes, strict=True):
        if around.problem is not None and layer.type in LEARNING:
            raise SurgeryError(around.problem)
    values = sum(int(np.prod(shape)) for one in shapes for shape in one.params)
    if values > most:
        raise LeftOutError(f"{values:,} values, more than --most-values")
    random = np.random.default_rng(0)
    filled = []
    for layer, around in zip(layers, shapes, strict=True):
        blobs = [
            _random(layer.type, place, shape, random) for place, shape in enumerate(around.params)
        ]
        filled.append(Layer(layer, tuple(blobs)))
    return Caffemodel(tuple(filled), NetParameter(name=net.name))


def _random(
    kind: str, place: int, shape: Shape, random: np.random.Generator
) -> NDArray[np.float32]:
    if kind == "BatchNorm":  # mean, variance and the factor of both
        values = random.uniform(0.5, 1.5, shape) if place == 1 else random.normal(size=shape) * 0.1
        return np.ones(shape, np.float32) if place == 2 else values.astype(np.float32)
    if kind in ("Scale", "PReLU"):
        return random.uniform(0.5, 1.0, shape).astype(np.float32)
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
    scale = np.float32((2 / max(fan_in, 1)) ** 0.5)
    return random.standard_normal(shape, np.float32) * scale


def _deploy(case: Case) -> None:
    out = case.work / "deploy.prototxt"
    caffe_prune("convert", case.path, "--to", "deploy", "--out", out, *case.shapes)
    if not any(layer.type == "Input" for layer in read_net(out).layer):
        raise WrongAnswerError("the deploy net has no Input layer")


def _needs(case: Case, *names: str) -> None:
    needed = [*(case.work / name for name in names), case.filled]
    if missing := [path.name for path in needed if not path.exists()]:
        raise LeftOutError(f"there is no {missing[0]}")


def _connections(case: Case) -> None:
    _needs(case, "inputs.json")
    out = case.work / "connections"
    model = ("--net", case.path, "--weights", case.filled)
    caffe_prune(
        *["prune", "connections", "--layers", "all", "--ratio"], RATIO, *model, "--out", out
    )
    before, after = read_weights(case.filled), read_weights(out / "pruned.caffemodel")
    if [key for key, _ in before.blobs()] != [key for key, _ in after.blobs()]:
        raise WrongAnswerError("the pruned model has other blobs")
    for (key, old), (_, new) in zip(before.blobs(), after.blobs(), strict=True):
        if not np.array_equal(new[new != 0], old[new != 0]):
            raise WrongAnswerError(f"{key}: a weight that was kept has changed")
    caffe_prune("inspect", out / "pruned.caffemodel", "--audit", out / "kept.mask.h5", "--json")


def _units(case: Case) -> None:
    _needs(case, "inputs.json")
    model = ("--net", case.path, "--weights", case.filled)
    options = ["prune", "units", "--layers", "all", "--masked", "--criterion", "l1", "--ratio"]
    # Sums under LRN are exact only with their neighbours, as the command says.
    exact = ["--keep-lrn-neighbours"] * any(one.type == "LRN" for one in read_net(case.path).layer)
    caffe_prune(*options, UNITS, *model, *exact, "--out", case.work / "units")
    require_fitting(
        read_net(case.work / "units" / "net.prototxt"),
        read_weights(case.work / "units" / "pruned.caffemodel"),
    )


def _verify_units(case: Case) -> None:
    _needs(case, "units/masked/pruned.caffemodel")
    _same(case, case.work / "units" / "masked", case.work / "units")


def _verify_deploy(case: Case) -> None:
    _needs(case, "deploy.prototxt", "inputs.json")
    settings = (one.batch_norm_param for one in read_net(case.path).layer)
    if any(one.HasField("use_global_stats") and not one.use_global_stats for one in settings):
        raise LeftOutError("the deploy net goes by stored statistics, as the command says")
    _same(case, f"{case.path}:{case.filled}", f"{case.work / 'deploy.prototxt'}:{case.filled}")


def _same(case: Case, first: Path | str, second: Path | str) -> None:
    """Compare by OpenCV, which is quick, and by torch where OpenCV does not know a layer."""
    words = ("verify", first, second, "--batch", "1", *case.shapes, "--judge")
    try:
        try:
            caffe_prune(*words, "opencv")
        except EngineError:
            caffe_prune(*words, "torch")
    except PruneError as error:
        if "are not the same" in str(error):
            raise WrongAnswerError(str(error)) from error
        raise


def _onnx(case: Case) -> None:
    _needs(case, "deploy.prototxt", "inputs.json")
    out = case.work / "model.onnx"
    caffe_prune(
        "convert", case.filled, "--net", case.path, "--to", "onnx", "--out", out, *case.shapes
    )
    _run_onnx(case, out)


def _run_onnx(case: Case, path: Path) -> None:
    """Run the ONNX model, and the deploy net in OpenCV, on the same input."""
    import onnxruntime

    from pycaffe_prune.engines.comparison import opencv_net

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(1)
    data = {
        one.name: random.standard_normal(
            [size if isinstance(size, int) else 1 for size in one.shape], np.float32
        )
        for one in session.get_inputs()
    }
    names = [one.name for one in session.get_outputs()]
    found = session.run(names, data)
    try:
        expected = opencv_net.forward(case.work / "deploy.prototxt", case.filled, data, names)
    except PruneError as error:
        raise LeftOutError(f"converted; not compared: {error}") from error
    for name, ours, theirs in zip(names, found, expected, strict=True):
        scale = float(np.abs(theirs).max(initial=0.0))
        apart = float(np.abs(ours - theirs.reshape(ours.shape)).max(initial=0.0))
        if not apart <= 1e-3 * scale + 1e-6:
            raise WrongAnswerError(
                f"'{name}' of the ONNX model differs by {apart:.2g} of {scale:.2g}"
            )


def _inspect_weights(case: Case) -> None:
    caffe_prune("inspect", case.path)


def _rewrite_weights(case: Case) -> None:
    """Weights that are written have the values that were read."""
    out = case.work / "again.caffemodel"
    caffe_prune("convert", case.path, "--to", "caffemodel", "--out", out)
    before, after = read_weights(case.path), read_weights(out)
    pairs = zip(before.blobs(), after.blobs(), strict=True)
    if not all(old == new and np.array_equal(a, b, equal_nan=True) for (old, a), (new, b) in pairs):
        raise WrongAnswerError("the weights that were written are not those that were read")


def _net_of_weights(case: Case) -> None:
    caffe_prune("convert", case.path, "--to", "prototxt", "--out", case.work / "net.prototxt")


Step = Callable[[Case], None]

NET_STEPS: Mapping[str, Step] = {
    "inspect": _inspect,
    "inspect train": _inspect_train,
    "rewrite": _rewrite,
    "shapes": _fill,
    "deploy": _deploy,
    "connections": _connections,
    "units": _units,
    "verify units": _verify_units,
    "verify deploy": _verify_deploy,
    "onnx": _onnx,
}
WEIGHT_STEPS: Mapping[str, Step] = {
    "inspect": _inspect_weights,
    "rewrite": _rewrite_weights,
    "net of": _net_of_weights,
}
