"""What of a net's data Caffe would abort on, or read foreign memory for: seen before training."""

from collections.abc import Iterable, Iterator, Sequence

from pycaffe_prune.engines.data_shapes import data_shapes
from pycaffe_prune.engines.net_files import NetFile
from pycaffe_prune.errors import DataError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.net.graph import NetGraph, NetState, layers_in_state
from pycaffe_prune.net.shapes import infer_shapes

__all__ = ["refuse_faulty_data"]

_AXES = {
    "Accuracy": "accuracy_param",
    "InfogainLoss": "infogain_loss_param",
    "SoftmaxWithLoss": "softmax_param",
}
_JUDGES = frozenset({*_AXES, "HingeLoss", "MultinomialLogisticLoss"})
_IGNORING = {"Accuracy": "accuracy_param", "SoftmaxWithLoss": "loss_param"}
_LABELLED = frozenset({"Data", "ImageData"})


def refuse_faulty_data(
    net: NetParameter, files: Sequence[NetFile], states: Iterable[NetState]
) -> None:
    """Refuse images of different kinds in one LMDB, and labels that name no class.

    Caffe aborts on the former (`src/caffe/data_transformer.cpp`). For the latter a Caffe that is
    built for use does not look: it reads memory behind the scores.

    Args:
        net: With absolute paths.
        files: What it reads.
        states: Those in which it is used.

    Raises:
        DataError: The sentence names layer, data, and what is wrong with them.
    """
    for file in files:
        _refuse_mixed_channels(net.layer[file.place], file)
    for state in states:
        layers = layers_in_state(net, state)
        for judge, source, classes in _judges(layers):
            for file in files:
                if net.layer[file.place] == source and file.content.labels:
                    _require_range(judge, file, file.content.labels, classes)


def _refuse_mixed_channels(layer: LayerParameter, file: NetFile) -> None:
    told = layer.transform_param
    found = dict(file.content.pixels)
    if not (told.force_color or told.force_gray):
        found = {**dict(file.content.encoded), **found}
    if len(found) > 1:
        listed = " and ".join(f"{channels} (record {key})" for channels, key in found.items())
        raise DataError(
            f"{file.reader}: the images of the LMDB {file.path} have different numbers of "
            f"channels, {listed}; build it of images of one kind, or of encoded ones and say "
            "force_color or force_gray"
        )


def _judges(
    layers: Sequence[LayerParameter],
) -> Iterator[tuple[LayerParameter, LayerParameter, int]]:
    """The layers that compare scores with a data layer's labels, that one, and how many classes."""
    try:
        shapes = infer_shapes(layers, data_shapes(layers))
    except SurgeryError:
        return  # the engine says what is wrong with the net
    graph = NetGraph(layers)
    for layer, around, bottoms in zip(layers, shapes, graph.bottoms, strict=True):
        if layer.type not in _JUDGES or len(bottoms) < 2:
            continue
        scores, labels = around.bottoms[0], bottoms[1]
        axis = getattr(layer, _AXES[layer.type]).axis if layer.type in _AXES else 1
        if scores is None or labels is None or not -len(scores) <= axis < len(scores):
            continue
        source = layers[labels.layer]
        if source.type in _LABELLED and labels.number == 1:
            yield layer, source, scores[axis]


def _require_range(
    judge: LayerParameter, file: NetFile, labels: tuple[int, int], classes: int
) -> None:
    told = getattr(judge, _IGNORING[judge.type]) if judge.type in _IGNORING else None
    ignored = told.ignore_label if told is not None and told.HasField("ignore_label") else None
    for label in labels:
        if not 0 <= label < classes and label != ignored:
            raise DataError(
                f"{file.reader}: a label in {file.path} is {label}, but layer '{judge.name}' "
                f"({judge.type}) compares it with {classes} classes, 0 to {classes - 1}; correct "
                "the labels, or the number of classes"
            )
