"""Do two models compute the same? Masked against deleted, before against after.

Both get the same input, through every judge at hand: the real Caffe, and OpenCV's Caffe importer.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.errors import EngineError, FormatError, PruneError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.graph import with_state
from pycaffe_prune.net.index_inputs import IndexUse, index_uses, require_indices
from pycaffe_prune.net.inference import inference_net, input_shapes, output_blobs
from pycaffe_prune.net.shapes import Shape, extents
from pycaffe_prune.net.state_wish import OWN_STATE, StateWish, only_layers_of, require_named
from pycaffe_prune.net.trust import refuse_untrusted
from pycaffe_prune.pruning.counts import require_finite

__all__ = [
    "TOLERANCE",
    "BlobComparison",
    "Data",
    "Forward",
    "InputSource",
    "Judge",
    "JudgeVerdict",
    "ModelFiles",
    "Refusal",
    "Verification",
    "compare_blobs",
    "verify",
]

TOLERANCE = 1e-4
"""Relative to the largest value: float32 sums in another order stay 10 to 100 times below it."""

Data = Mapping[str, NDArray[np.float32]]
"""Arrays by blob name, float32."""

InputSource = Callable[[Mapping[str, Shape | None], Mapping[str, Sequence[IndexUse]]], Data]
"""Makes the input for data blobs of these shapes, whose batch size does not count.

The second argument has the blobs that layers take as whole numbers (`net.index_inputs`)."""

Forward = Callable[[Path, Path, Data, Sequence[str]], list[NDArray[np.float32]]]
"""Runs a net and its weights and returns blobs, as `CaffeEngine.forward` does."""


@dataclass(frozen=True)
class ModelFiles:
    """A model as it lies on disk."""

    net: Path
    """A prototxt, deploy or train_val."""
    weights: Path
    """Any file that `formats.weights.read_weights` reads."""


@dataclass(frozen=True)
class Judge:
    """Something that can run a net."""

    name: str
    forward: Forward


@dataclass(frozen=True)
class BlobComparison:
    """How far apart two models are in one blob."""

    blob: str
    shape: Shape
    largest: float
    """The largest absolute value in the first model's blob; NaN when some are not finite."""
    max_difference: float
    """The largest absolute difference; NaN when values are not finite."""
    same_arg_max: int
    """For how many images both have their largest value in the same place."""
    finite: bool
    """Whether all values of both are finite."""
    spread: float
    """The largest difference between images in the first model; NaN when not finite."""

    @property
    def relative_difference(self) -> float:
        """`max_difference` by `largest`: 0 if both are, NaN when values are not finite."""
        if self.max_difference == 0:
            return 0.0
        return self.max_difference / self.largest if self.largest else math.inf

    def is_same(self, tolerance: float) -> bool:
        """Whether the two are equal; values that are not finite never are."""
        return self.finite and self.relative_difference <= tolerance


@dataclass(frozen=True)
class JudgeVerdict:
    """What one judge found."""

    judge: str
    blobs: tuple[BlobComparison, ...]


@dataclass(frozen=True)
class Refusal:
    """A judge that could not run the models, and why."""

    judge: str
    reason: str


@dataclass(frozen=True)
class Verification:
    """What all judges found."""

    tolerance: float
    judged: tuple[JudgeVerdict, ...]
    refused: tuple[Refusal, ...]
    only_in_one: tuple[str, ...]
    """Outputs that only one of the nets has, which were not compared."""

    @property
    def is_same(self) -> bool:
        """Whether all judges find all blobs equal."""
        return self.difference is None

    @property
    def not_felt(self) -> tuple[str, ...]:
        """Blobs that are the same for all of several images: their equality tells little."""
        return tuple(
            blob.blob
            for blob in self.judged[0].blobs
            if blob.shape[0] > 1 and blob.spread <= self.tolerance * blob.largest
        )

    @property
    def difference(self) -> tuple[str, BlobComparison] | None:
        """The first judge and blob that are not the same, or None when all are."""
        return next(
            (
                (verdict.judge, blob)
                for verdict in self.judged
                for blob in verdict.blobs
                if not blob.is_same(self.tolerance)
            ),
            None,
        )


def compare_blobs(
    name: str, first: NDArray[np.float32], second: NDArray[np.float32]
) -> BlobComparison:
    """Compare a blob as two models computed it, images × anything.

    Raises:
        SurgeryError: The shapes differ.
    """
    if first.shape != second.shape:
        raise SurgeryError(
            f"blob '{name}' is {extents(first.shape)} in the first model and "
            f"{extents(second.shape)} in the second; only models with the same outputs can be "
            "compared"
        )
    rows, others = (array.reshape(len(array), -1).astype(np.float64) for array in (first, second))
    finite = bool(np.isfinite(rows).all() and np.isfinite(others).all())
    largest = float(np.abs(rows).max(initial=0.0)) if finite else np.nan
    difference = float(np.abs(rows - others).max(initial=0.0)) if finite else np.nan
    return BlobComparison(
        blob=name,
        shape=first.shape,
        largest=largest,
        max_difference=difference,
        same_arg_max=int((rows.argmax(axis=1) == others.argmax(axis=1)).sum()),
        finite=finite,
        spread=float(np.ptp(rows, axis=0).max(initial=0.0)) if finite else np.nan,
    )


@dataclass(frozen=True)
class _Model:
    files: ModelFiles
    net: NetParameter
    weights: Caffemodel


def _model(files: ModelFiles, net: NetParameter, state: StateWish) -> _Model:
    net = with_state(net, state.level, state.stages)
    if state.phase != TEST:
        net = only_layers_of(net, state)
    return _Model(files, net, read_weights(files.weights))


def verify(
    first: ModelFiles,
    second: ModelFiles,
    judges: Sequence[Judge],
    source: InputSource,
    *,
    tolerance: float = TOLERANCE,
    shapes: Mapping[str, Shape] | None = None,
    state: StateWish = OWN_STATE,
    trust: bool = False,
) -> Verification:
    """Run both models on the same input and compare the outputs that both have.

    The nets may differ in all but their inputs' shapes and their outputs' sizes. Where the output
    is a Softmax, the blob before it is compared as well (`net.inference.output_blobs`).

    Args:
        first: The model that differences are measured by.
        second: The other one.
        judges: What runs the nets, each both of them. The first one must be able to; those after
            it may refuse, as OpenCV does when it does not know a layer.
        source: Makes the input, for instance `verify_input.random_input`.
        tolerance: The largest relative difference that counts as equal.
        shapes: Shapes of data blobs that the prototxts do not tell, by name.
        state: Which layers of the nets are compared; they run as in the phase TEST.
        trust: Whether the nets are the user's own, and may run code (`net.trust`).

    Raises:
        SurgeryError: The models have no output in common or other inputs, net and weights do not
            fit, weights are not finite, or the input is no valid index where a layer takes it so.
        FormatError: A file is damaged, what is compared of a net is not to be trusted, ``state``
            means nothing to either net, or the first judge refused a field.
        EngineError: The first judge refused a net.
    """
    nets = [read_net(files.net) for files in (first, second)]
    require_named(nets, state, f"{first.net} and {second.net}")
    models = [_model(*one, state) for one in zip((first, second), nets, strict=True)]
    outputs, only_in_one = _common_outputs(models)
    uses = _common_uses(models)
    data = source(_common_inputs(models, outputs, shapes or {}), uses)
    require_indices(data, uses)
    with temporary_folder() as folder:
        prepared = [
            _prepare(model, data, outputs, folder / name, trust)
            for model, name in zip(models, ("first", "second"), strict=True)
        ]
        judged, refused = [], []
        for judge in judges:
            try:
                with _naming_originals(prepared, (first, second)):
                    judged.append(_judge(judge, prepared, data, outputs))
            except (EngineError, FormatError) as error:
                if not judged:
                    raise
                refused.append(Refusal(judge.name, str(error)))
    return Verification(tolerance, tuple(judged), tuple(refused), only_in_one)


def _common_outputs(models: Sequence[_Model]) -> tuple[list[str], tuple[str, ...]]:
    first, second = (output_blobs(model.net) for model in models)
    common = [name for name in first if name in second]
    if not common:
        raise SurgeryError(
            f"the two nets have no output of the same name: {models[0].files.net} has "
            f"{', '.join(first) or 'none'}, {models[1].files.net} has "
            f"{', '.join(second) or 'none'}; rename the blobs of one"
        )
    return common, tuple(name for name in (*first, *second) if name not in common)


def _common_inputs(
    models: Sequence[_Model], outputs: Sequence[str], given: Mapping[str, Shape]
) -> dict[str, Shape | None]:
    first, second = (input_shapes(model.net, outputs, given) for model in models)
    if list(first) != list(second):
        raise SurgeryError(
            f"{models[0].files.net} reads the data blobs {', '.join(first) or 'none'}, "
            f"{models[1].files.net} reads {', '.join(second) or 'none'}; only models with the same "
            "inputs can be compared"
        )
    common = {}
    for name, shape in first.items():
        other = second[name]
        if shape is not None and other is not None and shape[1:] != other[1:]:
            raise SurgeryError(
                f"data blob '{name}' is {extents(shape)} in {models[0].files.net} and "
                f"{extents(other)} in {models[1].files.net}; only models with the same inputs can "
                "be compared"
            )
        common[name] = other if shape is None else shape
    return common


def _common_uses(models: Sequence[_Model]) -> dict[str, list[IndexUse]]:
    uses: dict[str, list[IndexUse]] = {}
    for model in models:
        for name, found in index_uses(model.net).items():
            uses.setdefault(name, []).extend(found)
    return uses


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except PruneError as error:
        raise type(error)(f"{path}: {error}") from error


@contextmanager
def _naming_originals(
    prepared: Sequence[ModelFiles], given: Sequence[ModelFiles]
) -> Iterator[None]:
    """Name the user's nets in an error, and not the parts of them that judges get."""
    try:
        yield
    except PruneError as error:
        sentence = str(error)
        for part, files in zip(prepared, given, strict=True):
            sentence = sentence.replace(str(part.net), str(files.net))
        raise type(error)(sentence) from error


def _prepare(
    model: _Model, data: Data, outputs: Sequence[str], folder: Path, trust: bool
) -> ModelFiles:
    """Write the part of the net that is compared; see that its weights are there and finite."""
    shapes = {name: array.shape for name, array in data.items()}
    with _naming(model.files.net):
        part = inference_net(model.net, shapes, outputs)
    if not trust:
        refuse_untrusted(part, model.files.net)
    held = {layer.name for layer in model.weights.layers}
    with _naming(model.files.weights):
        require_fitting(part, model.weights)
        require_finite(model.weights, [layer.name for layer in part.layer if layer.name in held])
    write_prototxt(folder / "net.prototxt", part)
    weights = model.files.weights.absolute()
    if weights.suffix != ".caffemodel":  # Caffe goes by the ending, and knows only two forms
        weights = folder / "net.caffemodel"
        write_caffemodel(weights, model.weights)
    return ModelFiles(folder / "net.prototxt", weights)


def _judge(
    judge: Judge, models: Sequence[ModelFiles], data: Data, outputs: Sequence[str]
) -> JudgeVerdict:
    first, second = (judge.forward(model.net, model.weights, data, outputs) for model in models)
    compared = (compare_blobs(*one) for one in zip(outputs, first, second, strict=True))
    return JudgeVerdict(judge.name, tuple(compared))
