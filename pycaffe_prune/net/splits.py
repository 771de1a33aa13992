"""Split layers, which Caffe puts in wherever several layers read a blob."""

from collections import Counter
from collections.abc import Sequence

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter
from pycaffe_prune.net.graph import NetGraph, Top

__all__ = ["insert_splits"]


def insert_splits(layers: Sequence[LayerParameter]) -> list[LayerParameter]:
    """Return the layers with a Split after each top that is used more than once.

    As `src/caffe/util/insert_splits.cpp`: a loss weight that is stated counts as a use and goes
    over to the first top of the Split.

    Args:
        layers: Those of one state; they stay as they are.

    Raises:
        SurgeryError: A layer reads a blob that none before it makes.
    """
    graph = NetGraph(layers)
    uses, weights = _uses(graph), _stated_weights(layers)
    for top in weights:
        uses[top] += 1
    taken: Counter[Top] = Counter({top: 1 for top in weights if uses[top] > 1})
    found: list[LayerParameter] = []
    for place, layer in enumerate(layers):
        own = LayerParameter()
        own.CopyFrom(layer)
        found.append(own)
        for number, source in enumerate(graph.bottoms[place]):
            if source is not None and uses[source] > 1:
                own.bottom[number] = _names(layers, source)[1].format(taken[source])
                taken[source] += 1
        for number in range(len(layer.top)):
            top = Top(place, number)
            if uses[top] > 1:
                found.append(_split(layers, top, uses[top], weights.get(top, 0)))
                if top in weights:
                    del own.loss_weight[:]
    return found


def _uses(graph: NetGraph) -> Counter[Top]:
    uses: Counter[Top] = Counter()
    for place, layer in enumerate(graph.layers):
        for name, source in zip(layer.bottom, graph.bottoms[place], strict=True):
            if source is None:
                raise SurgeryError(
                    f"layer '{layer.name}' reads the blob '{name}', which no layer before it "
                    "makes; check its bottom, and include and exclude rules"
                )
            uses[source] += 1
    return uses


def _stated_weights(layers: Sequence[LayerParameter]) -> dict[Top, float]:
    return {
        Top(place, number): weight
        for place, layer in enumerate(layers)
        for number, weight in enumerate(layer.loss_weight[: len(layer.top)])
        if weight
    }


def _names(layers: Sequence[LayerParameter], top: Top) -> tuple[str, str]:
    """The name of a Split, and the pattern of those of its tops."""
    layer = layers[top.layer]
    name = f"{layer.top[top.number]}_{layer.name}_{top.number}_split"
    return name, name.replace("{", "{{").replace("}", "}}") + "_{}"


def _split(layers: Sequence[LayerParameter], top: Top, count: int, weight: float) -> LayerParameter:
    name, pattern = _names(layers, top)
    return LayerParameter(
        name=name,
        type="Split",
        bottom=[layers[top.layer].top[top.number]],
        top=[pattern.format(number) for number in range(count)],
        loss_weight=[weight, *[0.0] * (count - 1)] if weight else [],
    )
