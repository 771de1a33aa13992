"""From a net for training to a net for use: data in by an Input layer, probabilities out."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from pycaffe_prune.convert.definitions import LEARNING
from pycaffe_prune.convert.deploy_inputs import (
    inputs_of_data_layer,
    inputs_that_nothing_makes,
    layers_with_weights,
    require_used,
)
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.formats.carried import carried_fields, to_text
from pycaffe_prune.formats.field_table import refuse_unhonoured
from pycaffe_prune.net.graph import NetGraph, NetState, Top, layers_in_state
from pycaffe_prune.net.setup_checks import refuse_repeated_tops
from pycaffe_prune.net.shapes import Shape

__all__ = ["deploy_remarks", "to_deploy", "used_layers"]

_NO_INPUTS: Mapping[str, Shape] = MappingProxyType({})
_ACTIVATION = {
    "SoftmaxWithLoss": "Softmax",
    "InfogainLoss": "Softmax",
    "SigmoidCrossEntropyLoss": "Sigmoid",
}
_REPORTS = frozenset({"Accuracy", "HDF5Output", "Silence"})
_FILLERS = ("weight_filler", "bias_filler", "filler")


def to_deploy(
    net: NetParameter,
    inputs: Mapping[str, Shape] = _NO_INPUTS,
    model: Caffemodel | None = None,
) -> NetParameter:
    """Return the deploy form of a train_val net; a deploy net comes back without its fillers.

    It is the TEST net with an Input layer for every blob that a prediction needs and a data layer
    made, or no layer of the TEST net where its shape is given. BatchNorm goes by its stored
    statistics, also where ``use_global_stats: false`` had the TEST net take those of the batch.
    SoftmaxWithLoss and InfogainLoss become the Softmax ``prob``, SigmoidCrossEntropyLoss
    the Sigmoid ``prob``: what these losses compute inside (`softmax_loss_layer.cpp` and
    `sigmoid_cross_entropy_loss_layer.cpp` of `src/caffe/layers`). Out go the other losses,
    Accuracy, whatever served only them and the labels, auxiliary heads (of several losses on the
    same labels those with less than the greatest loss_weight), fillers, learning rates and phase
    rules.

    Args:
        net: A net in the V2 form.
        inputs: Shapes of data blobs by name; they come before what the net tells.
        model: Its weights, if at hand: they tell the number of channels where the net does not.

    Raises:
        FormatError: A layer is to compute as in training.
        SurgeryError: The shape of a data blob is not known, one is given that the net does not
            have, or the net predicts nothing.
    """
    graph, losses, kept = _needed(net)
    refuse_repeated_tops(graph.layers)
    taken = layers_with_weights(net, model)
    activations = _activations(graph, kept, losses, taken)
    deploy = NetParameter()
    if net.HasField("name"):
        deploy.name = net.name
    deploy.layer.extend(inputs_that_nothing_makes(net, graph, kept, inputs, taken))
    data = _data_layers(graph, kept)
    if not data and not deploy.layer:  # constants alone: they stand in for images, to time a net
        data = {place for place in kept if graph.layers[place].type == "DummyData"}
    for place, layer in enumerate(graph.layers):
        if place in activations:
            deploy.layer.append(activations[place])
        elif place in kept - data:
            refuse_unhonoured(layer, "deploy")
            deploy.layer.append(_for_use(layer))
        elif place in kept:
            deploy.layer.extend(inputs_of_data_layer(graph, kept, place, inputs, model, taken))
    require_used(net, deploy, inputs)
    return deploy


def used_layers(net: NetParameter) -> list[LayerParameter]:
    """Return the layers of `to_deploy` that compute something of the net's own, without data.

    Raises:
        SurgeryError: The net predicts nothing.
    """
    graph, _, kept = _needed(net)
    computing = kept - _data_layers(graph, kept)
    return [_for_use(graph.layers[place]) for place in sorted(computing)]


def deploy_remarks(net: NetParameter) -> list[str]:
    """Say what the TEST net does and its deploy form does not.

    What its data layers do to the images, and BatchNorm by the statistics of the batch.
    """
    said = []
    for layer in layers_in_state(net, NetState.of(net, TEST)):
        if _goes_by_the_batch(layer):
            said.append(
                f"note: layer '{layer.name}' has use_global_stats: false, so that Caffe's TEST net "
                "normalises by the batch at hand; the deploy net goes by the stored statistics"
            )
        if not layer.bottom and layer.HasField("transform_param"):
            settings = " ".join(to_text(layer.transform_param).split())
            said.append(
                f"note: layer '{layer.name}' prepared the images with {{ {settings} }}; whoever "
                "feeds the deploy net does it instead"
            )
    return said


def _needed(net: NetParameter) -> tuple[NetGraph, list[int], set[int]]:
    """The TEST net, the places of its main losses, and those of the layers that it predicts by."""
    layers = layers_in_state(net, NetState.of(net, TEST))
    layers += _losses_of_training(net, layers)
    graph = NetGraph(layers)
    losses = _main_losses(graph)
    kept = graph.ancestors(top.layer for top in _predictions(graph, losses))
    if not any(graph.layers[place].bottom for place in kept):
        raise SurgeryError(
            f"net '{net.name}' predicts nothing in the phase TEST: no layer there leads from data "
            "to a loss or to an output; check its include and exclude rules"
        )
    return graph, losses, kept


def _data_layers(graph: NetGraph, kept: Collection[int]) -> set[int]:
    return {place for place in kept if not _computes(graph.layers[place])}


def _computes(layer: LayerParameter) -> bool:
    """Whether a layer makes something of the net's own, be it the constants of a DummyData.

    One that only stands in for data, of zeros or random values, does not.
    """
    if layer.type == "DummyData":
        fillers = layer.dummy_data_param.data_filler
        return any(filler.type == "constant" and filler.value for filler in fillers)
    return bool(layer.bottom) or layer.type == "Parameter"


def _is_loss(layer: LayerParameter) -> bool:
    return layer.type.endswith("Loss")


def _losses_of_training(
    net: NetParameter, layers: Sequence[LayerParameter]
) -> list[LayerParameter]:
    """The losses of the TRAIN net if the TEST net has none: they tell what the scores mean."""
    if any(_is_loss(layer) for layer in layers):
        return []
    made = {top for layer in layers for top in layer.top}
    training = layers_in_state(net, NetState.of(net, TRAIN))
    return [layer for layer in training if _is_loss(layer) and made.issuperset(layer.bottom)]


def _main_losses(graph: NetGraph) -> list[int]:
    """Places of the losses that count: of those on the same labels the ones of greatest weight."""
    places = [place for place, layer in enumerate(graph.layers) if _is_loss(layer)]
    greatest: dict[tuple[Top | None, ...], float] = {}
    for place in places:
        labels = graph.bottoms[place][1:]
        greatest[labels] = max(_weight(graph.layers[place]), greatest.get(labels, 0.0))
    return [
        place
        for place in places
        if _weight(graph.layers[place]) >= greatest[graph.bottoms[place][1:]]
    ]


def _weight(loss: LayerParameter) -> float:
    return loss.loss_weight[0] if loss.loss_weight else 1.0


def _predictions(graph: NetGraph, losses: Sequence[int]) -> list[Top]:
    """What the net is there for: what its losses judge, and learned outputs that nothing reads."""
    judges = losses or [
        place for place, layer in enumerate(graph.layers) if layer.type == "Accuracy"
    ]
    wanted = []
    for place in judges:
        judged = graph.bottoms[place]
        if graph.layers[place].type in {*_ACTIVATION, "Accuracy"}:
            judged = judged[:1]
        wanted += [top for top in judged if top is not None and _is_learned(graph, top)]
    unread = [
        top
        for top in graph.tops()
        if not graph.readers(top)
        and graph.layers[top.layer].bottom
        and not _is_loss(graph.layers[top.layer])
        and graph.layers[top.layer].type not in _REPORTS
    ]
    wanted += [top for top in unread if _is_learned(graph, top)]
    return wanted or unread


def _is_learned(graph: NetGraph, top: Top) -> bool:
    return any(graph.layers[place].type in LEARNING for place in graph.ancestors([top.layer]))


def _for_use(layer: LayerParameter) -> LayerParameter:
    """The layer without all that only training needs; shared parameters keep their names."""
    plain = LayerParameter()
    plain.CopyFrom(layer)
    for field in ("include", "exclude", "phase", "loss_weight", "propagate_down"):
        plain.ClearField(field)
    if any(param.name for param in plain.param):
        for param in plain.param:
            if param.lr_mult:  # BatchNorm insists on its 0
                param.ClearField("lr_mult")
            param.ClearField("decay_mult")
    else:
        plain.ClearField("param")
    if _goes_by_the_batch(plain):
        plain.batch_norm_param.ClearField("use_global_stats")
    for settings, _ in layer.ListFields():
        if settings.name.endswith("_param"):
            _clear_fillers(plain, settings.name)
    return plain


def _goes_by_the_batch(layer: LayerParameter) -> bool:
    """Whether BatchNorm takes the batch's statistics in every phase (`batch_norm_layer.cpp`)."""
    told = layer.batch_norm_param
    return (
        layer.type == "BatchNorm"
        and told.HasField("use_global_stats")
        and not told.use_global_stats
    )


def _clear_fillers(layer: LayerParameter, name: str) -> None:
    settings = getattr(layer, name)
    for filler in _FILLERS:
        if filler in settings.DESCRIPTOR.fields_by_name:
            settings.ClearField(filler)
    if not settings.ListFields() and not carried_fields(settings):
        layer.ClearField(name)


def _activations(
    graph: NetGraph, kept: set[int], losses: Sequence[int], weighted: Collection[str]
) -> dict[int, LayerParameter]:
    """The layers that make probabilities of scores, where the net has none of its own.

    By the place of the loss whose inside they were.
    """
    judges: dict[Top, int] = {}
    for place in losses:
        scores = graph.bottoms[place][0] if graph.bottoms[place] else None
        if graph.layers[place].type in _ACTIVATION and scores is not None:
            judges.setdefault(scores, place)
    taken = {
        *weighted,
        *(name for place in kept for name in (graph.layers[place].name, *graph.layers[place].top)),
    }
    new = {}
    for scores, place in judges.items():
        loss = graph.layers[place]
        kind = _ACTIVATION[loss.type]
        if any(reader.type == kind for reader in _kept_readers(graph, kept, scores)):
            continue
        alone = len(judges) == 1 and "prob" not in taken
        name = "prob" if alone else f"prob_{loss.bottom[0]}"
        layer = LayerParameter(name=name, type=kind, bottom=[loss.bottom[0]], top=[name])
        if loss.type == "InfogainLoss":  # whose own axis its Softmax goes by
            if loss.infogain_loss_param.HasField("axis"):
                layer.softmax_param.axis = loss.infogain_loss_param.axis
        elif kind == "Softmax" and loss.HasField("softmax_param"):
            layer.softmax_param.CopyFrom(loss.softmax_param)
        new[place] = layer
    return new


def _kept_readers(graph: NetGraph, kept: set[int], top: Top) -> list[LayerParameter]:
    return [graph.layers[place] for place in kept if top in graph.bottoms[place]]
