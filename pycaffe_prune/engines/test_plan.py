"""What a test of a net reads: which scores it judges, by which labels, and how Caffe would."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pycaffe_prune.engines.losses import loss_weights
from pycaffe_prune.engines.net_data import batch_size, data_layer_of
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, LossParameter

__all__ = [
    "NetTest",
    "SoftmaxLoss",
    "TestPlan",
    "headline_mark",
    "judges_of",
    "label_source",
    "plan_test",
]

_SAME_HEAD = frozenset(
    {"Dropout", "Exp", "Flatten", "Log", "Power", "ReLU", "Reshape", "Sigmoid", "Softmax", "Split"}
)
"""Layers behind which scores are still those of the same head."""


class SoftmaxLoss(BaseModel):
    """A SoftmaxWithLoss layer (`src/caffe/layers/softmax_loss_layer.cpp`)."""

    model_config = ConfigDict(frozen=True)

    scores: str
    labels: str
    axis: int
    ignore_label: int | None
    normalization: Literal["FULL", "VALID", "BATCH_SIZE", "NONE"]


class TestPlan(BaseModel):
    """The scores that a test judges: those of the net's headline.

    That is the Accuracy layer on the scores of the loss with the greatest weight (ties: the last;
    of several on one head the one with the lowest ``top_k``), or else that loss. Where the TEST net
    has no loss, those of the TRAIN net weigh its heads.
    """

    __test__ = False  # pytest: not a test class
    model_config = ConfigDict(frozen=True)

    layer: str
    """The headline's name."""
    scores: str
    labels: str
    axis: int
    """Of the classes in the scores; a negative one counts from the end."""
    top_k: int
    ignore_label: int | None
    batch: int
    """Images that come with one forward pass."""
    loss: SoftmaxLoss | None
    """That of the same head."""
    loss_blob: str | None
    """The head's loss where it is another one than SoftmaxWithLoss."""


class NetTest(BaseModel):
    """How one of a solver's test nets is tested.

    By exact counts of right answers, each image once; or else, as Caffe itself does, by the means
    of its outputs over ``batches``, wherever the last test stopped; or not at all.
    """

    __test__ = False  # pytest: not a test class
    model_config = ConfigDict(frozen=True)

    name: str = ""
    """Its number, and how the solver tells it from the others; empty where it is the only one."""
    plan: TestPlan | None = None
    """None: no answers are counted."""
    images: int = 0
    """Those that are counted."""
    cycled_images: int = 0
    """Images that the solver's ``test_iter`` batches have, where that is more than there are."""
    in_order: bool = False
    """Whether every test has the images in the order of their source, so that the answers of two
    tests can be set side by side."""
    batches: int = 0
    """The solver's ``test_iter``."""
    losses: tuple[tuple[str, float], ...] = ()
    """The blobs that add to the net's loss, with their weights."""
    replay: tuple[tuple[str, int], ...] = ()
    """As `Job.replay`, of this net."""
    uncounted: str | None = None
    """Why the answers that the net judges are not counted."""
    untested: str | None = None
    """Why there is no test at all."""


def label_source(test: Sequence[LayerParameter], plan: TestPlan) -> LayerParameter:
    """Return the layer that brings the plan's labels.

    Raises:
        FormatError: It is not in the net.
    """
    source = data_layer_of(test, plan.labels)
    if source is None:
        raise FormatError(f"no layer brings the labels '{plan.labels}'")
    return source


def plan_test(
    test: Sequence[LayerParameter],
    wanted: str | None = None,
    train: Sequence[LayerParameter] = (),
) -> TestPlan | None:
    """Choose what a test of the net judges; None: nothing compares scores with labels.

    Args:
        test: The layers of the TEST net, in its order.
        wanted: The headline's name; None: by the rule.
        train: Those of the TRAIN net, whose losses are weighed where the TEST net has none.

    Raises:
        FormatError: There is no such Accuracy layer or SoftmaxWithLoss.
        SurgeryError: A layer's ``loss_weight`` are not one for each top.
    """
    losses = _losses_by_rank(test)
    weighed = _Weighed(losses, test) if losses else _Weighed(_losses_by_rank(train), train)
    chosen = _headline(test, weighed) if wanted is None else _named(test, wanted)
    if chosen is None:
        return None
    source = data_layer_of(test, chosen.bottom[1])
    if source is None:
        return None
    loss = _loss_of(test, chosen, _Weighed(losses, test))
    is_accuracy = chosen.type == "Accuracy"
    told = chosen.accuracy_param if is_accuracy else chosen.loss_param
    return TestPlan(
        layer=chosen.name,
        scores=chosen.bottom[0],
        labels=chosen.bottom[1],
        axis=chosen.accuracy_param.axis if is_accuracy else chosen.softmax_param.axis,
        top_k=chosen.accuracy_param.top_k if is_accuracy else 1,
        ignore_label=told.ignore_label if told.HasField("ignore_label") else None,
        batch=batch_size(source) or 0,
        loss=_softmax_loss(loss) if loss is not None and loss.type == "SoftmaxWithLoss" else None,
        loss_blob=loss.top[0] if loss is not None and loss.type != "SoftmaxWithLoss" else None,
    )


def headline_mark(test: Sequence[LayerParameter], plan: TestPlan) -> str | None:
    """Return what tells results that are judged so from others of the same net.

    Args:
        test: The layers of the TEST net, in its order.
        plan: What is judged there.

    Returns:
        None where the net has one judge only, which looks at the best class of axis 1 and ignores
        no label: of such nets also results from before headlines had names are judged so.
    """
    labelled = [layer for layer in test if _is_labelled(test, layer)]
    judges = [layer.name for layer in labelled if layer.type == "Accuracy"]
    judges = judges or [layer.name for layer in labelled if layer.type == "SoftmaxWithLoss"]
    is_plain = plan.axis == 1 and plan.top_k == 1 and plan.ignore_label is None
    if is_plain and judges == [plan.layer]:
        return None
    return plan.model_dump_json(include={"layer", "axis", "top_k", "ignore_label"})


def judges_of(test: Sequence[LayerParameter]) -> dict[str, LayerParameter]:
    """Return the layers of a TEST net that a test can judge by, by name."""
    return {
        layer.name: layer
        for layer in test
        if layer.type in {"Accuracy", "SoftmaxWithLoss"} and _is_labelled(test, layer)
    }


def _named(test: Sequence[LayerParameter], wanted: str) -> LayerParameter:
    judges = judges_of(test)
    if wanted not in judges:
        raise FormatError(
            f"the TEST net has no Accuracy or SoftmaxWithLoss layer '{wanted}' to judge by; there "
            f"are: {', '.join(judges) or 'none'}"
        )
    return judges[wanted]


class _Weighed(NamedTuple):
    """The layers that add to a net's loss, the heaviest first, and the net that they stand in."""

    losses: Sequence[LayerParameter]
    net: Sequence[LayerParameter]


def _losses_by_rank(net: Sequence[LayerParameter]) -> list[LayerParameter]:
    """The layers that add to the loss, the greatest weight first, of equal ones the last."""
    weighted = [
        (max(loss_weights(layer)), place, layer)
        for place, layer in enumerate(net)
        if layer.top and layer.bottom and any(loss_weights(layer))
    ]
    return [layer for _, _, layer in sorted(weighted, key=lambda one: one[:2], reverse=True)]


def _headline(test: Sequence[LayerParameter], weighed: _Weighed) -> LayerParameter | None:
    judges = [layer for layer in test if layer.type == "Accuracy" and _is_labelled(test, layer)]
    if not judges:
        return next(
            (
                layer
                for layer in _losses_by_rank(test)
                if layer.type == "SoftmaxWithLoss" and _is_labelled(test, layer)
            ),
            None,
        )
    last_place = {layer.bottom[0]: place for place, layer in enumerate(judges)}

    def rank(place: int) -> tuple[int, int, int, int]:
        layer = judges[place]
        loss = _loss_of(test, layer, weighed)
        behind = len(weighed.losses) if loss is None else weighed.losses.index(loss)
        return -behind, last_place[layer.bottom[0]], -layer.accuracy_param.top_k, place

    by_loss = max(range(len(judges)), key=rank)
    return judges[by_loss]


def _is_labelled(test: Sequence[LayerParameter], layer: LayerParameter) -> bool:
    return len(layer.bottom) > 1 and data_layer_of(test, layer.bottom[1]) is not None


def _loss_of(
    test: Sequence[LayerParameter], judge: LayerParameter, weighed: _Weighed
) -> LayerParameter | None:
    """The first of ``weighed`` on the same head as ``judge``."""
    if judge in weighed.losses:
        return judge
    head = _head(test, judge.bottom[0])
    return next(
        (
            loss
            for loss in weighed.losses
            # Any bottom: which of them is the label is up to the user in EuclideanLoss and others.
            if head & {*loss.top[1:]}.union(*(_head(weighed.net, blob) for blob in loss.bottom))
        ),
        None,
    )


def _head(net: Sequence[LayerParameter], blob: str) -> frozenset[str]:
    """The blob, and those before it whose scores it carries on."""
    found = {blob}
    for layer in reversed(net):
        if layer.type in _SAME_HEAD and layer.bottom and found & set(layer.top):
            found.add(layer.bottom[0])
    return frozenset(found)


def _softmax_loss(layer: LayerParameter) -> SoftmaxLoss:
    told = layer.loss_param
    normalization = LossParameter.NormalizationMode.Name(told.normalization)
    if told.HasField("normalize") and not told.HasField("normalization"):
        normalization = "VALID" if told.normalize else "BATCH_SIZE"
    return SoftmaxLoss.model_validate(
        {
            "scores": layer.bottom[0],
            "labels": layer.bottom[1],
            "axis": layer.softmax_param.axis,
            "ignore_label": told.ignore_label if told.HasField("ignore_label") else None,
            "normalization": normalization,
        }
    )
