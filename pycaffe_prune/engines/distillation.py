"""What a student learns from a teacher beside the labels (Hinton, Vinyals and Dean 2015).

The loss of the student's one SoftmaxWithLoss, cross entropy, becomes
(1 - m) * cross entropy + m * T^2 * KL(teacher at T || student at T), the latter averaged over the
same places; at T both are the softmax of the scores divided by T. Other losses stay. The teacher is
a net of its own beside the student's, in the phase TEST (Dropout off, BatchNorm with its global
statistics), and reads the student's batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pycaffe_prune.engines.fingerprint import net_fingerprint
from pycaffe_prune.engines.losses import loss_weights
from pycaffe_prune.engines.net_files import refuse_files
from pycaffe_prune.errors import FormatError, SurgeryError
from pycaffe_prune.formats.axes import Shape, extents
from pycaffe_prune.formats.caffe_pb2 import TEST, LayerParameter, LossParameter, NetParameter
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.prototxt import read_net, refuse_carried
from pycaffe_prune.formats.weights import caffe_weights
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.inference import inference_net, input_shapes, output_blobs
from pycaffe_prune.net.shapes import infer_shapes
from pycaffe_prune.net.trust import refuse_untrusted

__all__ = ["DISTILLED", "Distillation", "TeacherWish", "distilled_losses", "plan_distillation"]

DISTILLED = "(distillation)"
"""The blob that the teacher's part of the loss is reported as."""


@dataclass(frozen=True)
class TeacherWish:
    """A teacher as a user asks for it."""

    net: Path
    weights: Path
    temperature: float = 4.0
    """T, above 0."""
    mix: float = 0.5
    """m, from 0 (labels alone) to 1 (the teacher alone)."""


class Distillation(BaseModel):
    """A teacher as a job carries it; its net lies in the run's folder."""

    model_config = ConfigDict(frozen=True)

    net_sha256: str
    weights: str
    """Path of the teacher's."""
    weights_sha256: str
    inputs: tuple[str, ...]
    """Blobs of the student's batch that the teacher reads, by the same names."""
    scores: str
    """The teacher's blob."""
    loss: str
    """The student's layer."""
    temperature: float = Field(gt=0, allow_inf_nan=False)
    mix: float = Field(ge=0, le=1)

    @property
    def identity(self) -> dict[str, object]:
        """What makes a run another one: all but where the weights lie."""
        return self.model_dump(exclude={"weights"})


def distilled_losses(
    losses: Iterable[tuple[str, float]], told: Distillation, layers: Sequence[LayerParameter]
) -> list[tuple[str, float]]:
    """Return the blobs that add to the training loss, with their weights, the teacher's part last.

    Args:
        losses: Those of the net alone.
        told: The teacher.
        layers: The student's, of the phase TRAIN.
    """
    (entropy,) = (layer.top[0] for layer in layers if layer.name == told.loss)
    mixed = [(top, weight * (1 - told.mix if top == entropy else 1)) for top, weight in losses]
    return [*mixed, (DISTILLED, 1.0)]


def plan_distillation(
    wish: TeacherWish, layers: Sequence[LayerParameter], inputs: Mapping[str, Shape], *, trust: bool
) -> tuple[Distillation, NetParameter]:
    """See that a teacher and a student go together.

    Args:
        wish: The teacher.
        layers: The student's, of the phase TRAIN.
        inputs: Shapes of the student's data, as for `infer_shapes`.
        trust: Whether the teacher's net is the user's own, and may run code (`net.trust`).

    Returns:
        What the job carries, and the teacher's net with Input layers for its data.

    Raises:
        FormatError: A file is missing or damaged, or the teacher's net is not to be trusted.
        SurgeryError: Teacher and student do not go together; the sentence says why.
    """
    loss = _cross_entropy(layers)
    net = read_net(wish.net)
    refuse_carried(net, wish.net, "a teacher")
    if not trust:
        refuse_untrusted(net, wish.net)
    shapes = infer_shapes(layers, inputs)
    data = {
        top: shape
        for layer, around in zip(layers, shapes, strict=True)
        if not layer.bottom
        for top, shape in zip(layer.top, around.tops, strict=True)
        if shape is not None
    }
    scores = _scores(net, wish.net)
    needed = list(input_shapes(net, [scores], data))
    if lacking := [name for name in needed if name not in data]:
        raise SurgeryError(
            f"{wish.net}: the teacher reads the blob '{lacking[0]}', which the student's training "
            f"data do not bring; they bring {', '.join(data) or 'none of a known shape'}"
        )
    _require_same_values(net, wish.net, needed, layers)
    teacher = inference_net(net, {name: data[name] for name in needed}, [scores])
    if not trust:
        refuse_files(teacher, wish.net)
    _require_same_scores(teacher, scores, wish.net, loss, layers, inputs)
    try:
        require_fitting(teacher, caffe_weights(wish.weights))
    except (FormatError, SurgeryError) as error:
        raise SurgeryError(f"teacher {wish.weights}: {error}") from error
    told = Distillation(
        net_sha256=net_fingerprint(teacher, ()),
        weights=str(wish.weights.resolve()),
        weights_sha256=sha256_of(wish.weights),
        inputs=tuple(needed),
        scores=scores,
        loss=loss.name,
        temperature=wish.temperature,
        mix=wish.mix,
    )
    return told, teacher


def _cross_entropy(layers: Sequence[LayerParameter]) -> LayerParameter:
    found = [
        layer for layer in layers if layer.type == "SoftmaxWithLoss" and any(loss_weights(layer))
    ]
    if len(found) != 1:
        names = ", ".join(layer.name for layer in found) or "none"
        raise SurgeryError(
            "a teacher needs a student with one SoftmaxWithLoss in its training, whose scores it "
            f"teaches; here there are: {names}"
        )
    told = found[0].loss_param
    over_all = told.normalization in (LossParameter.VALID, LossParameter.FULL)
    if told.HasField("ignore_label") or told.HasField("normalize") or not over_all:
        raise SurgeryError(
            f"layer '{found[0].name}': a teacher's part of the loss is averaged over all places; "
            "take ignore_label, normalize and normalization out of its loss_param"
        )
    return found[0]


def _scores(net: NetParameter, path: Path) -> str:
    layers = layers_in_state(net, NetState.of(net, TEST))
    heads = {
        layer.bottom[0]: None for layer in layers if layer.type in ("Softmax", "SoftmaxWithLoss")
    } or dict.fromkeys(output_blobs(net))
    if len(heads) != 1:
        raise SurgeryError(
            f"{path}: which blob has the teacher's scores is not clear: {', '.join(heads)}; give a "
            "net with one of them, its deploy.prototxt say"
        )
    return next(iter(heads))


def _require_same_values(
    net: NetParameter, path: Path, needed: Sequence[str], student: Sequence[LayerParameter]
) -> None:
    """Refuse a teacher that was trained with values on another scale, as far as it is told."""
    theirs = layers_in_state(net, NetState.of(net, TEST))
    for name in needed:
        (mine,) = (layer for layer in student if not layer.bottom and name in layer.top)
        for layer in theirs:
            if name not in layer.top or layer.bottom or layer.type == "Input":
                continue
            for field in ("scale", "mean_value", "mean_file"):
                values = [_told(one, field) for one in (layer, mine)]
                if values[0] != values[1]:
                    raise SurgeryError(
                        f"{path}: the teacher knows '{name}' with {field} {values[0]}, the student "
                        f"brings it with {values[1]}; bring both to the same values, or give the "
                        "teacher's deploy.prototxt if they are the same"
                    )


def _told(layer: LayerParameter, field: str) -> str:
    value = getattr(layer.transform_param, field)
    if field == "mean_file":
        return Path(value).name or "none"
    return f"{value:g}" if isinstance(value, float) else str(list(value))


def _require_same_scores(
    teacher: NetParameter,
    scores: str,
    path: Path,
    loss: LayerParameter,
    layers: Sequence[LayerParameter],
    inputs: Mapping[str, Shape],
) -> None:
    theirs = _shape(teacher.layer, scores, {})
    mine = _shape(layers, loss.bottom[0], inputs)
    if theirs is None or theirs != mine:
        told = [extents(shape) if shape else "not known" for shape in (theirs, mine)]
        raise SurgeryError(
            f"{path}: the teacher's scores '{scores}' are {told[0]}, the student's "
            f"'{loss.bottom[0]}' {told[1]}; both must have the same classes in the same places"
        )


def _shape(
    layers: Sequence[LayerParameter], blob: str, inputs: Mapping[str, Shape]
) -> Shape | None:
    found = None
    for layer, around in zip(layers, infer_shapes(layers, inputs), strict=True):
        for top, shape in zip(layer.top, around.tops, strict=True):
            found = shape if top == blob else found
    return found
