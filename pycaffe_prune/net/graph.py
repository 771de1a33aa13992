"""A net as a graph: phases, producers, consumers, in-place layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pycaffe_prune.formats.caffe_pb2 import (
    TEST,
    TRAIN,
    LayerParameter,
    NetParameter,
    NetStateRule,
    Phase,
)

__all__ = ["NetGraph", "NetState", "layers_in_state"]


@dataclass(frozen=True)
class NetState:
    """What decides which layers a net has: Caffe's NetState."""

    phase: Phase = TEST
    level: int = 0
    stages: tuple[str, ...] = ()


def _meets(rule: NetStateRule, state: NetState) -> bool:
    """`Net::StateMeetsRule` of `src/caffe/net.cpp`."""
    return not (
        (rule.HasField("phase") and rule.phase != state.phase)
        or (rule.HasField("min_level") and state.level < rule.min_level)
        or (rule.HasField("max_level") and state.level > rule.max_level)
        or any(stage not in state.stages for stage in rule.stage)
        or any(stage in state.stages for stage in rule.not_stage)
    )


def layers_in_state(net: NetParameter, state: NetState) -> list[LayerParameter]:
    """Return the layers that Caffe would build for ``state`` (`Net::FilterNet`).

    A layer without rules is always in; one with ``include`` rules is in when any is met, one with
    ``exclude`` rules when none is.
    """
    return [
        layer
        for layer in net.layer
        if (
            any(_meets(rule, state) for rule in layer.include)
            if layer.include
            else not any(_meets(rule, state) for rule in layer.exclude)
        )
    ]


class NetGraph:
    """Who produces and who consumes which blob, for one state of a net.

    A blob that is written in place has several versions; each consumer reads the latest one
    before it, in the order of the file, as Caffe does.
    """

    def __init__(self, layers: Sequence[LayerParameter]) -> None:
        self.layers = tuple(layers)
        self._consumers: list[list[int]] = [[] for _ in self.layers]
        latest: dict[str, int] = {}
        for index, layer in enumerate(self.layers):
            for bottom in layer.bottom:
                if bottom in latest:
                    self._consumers[latest[bottom]].append(index)
            for top in layer.top:
                latest[top] = index

    def consumers(self, name: str) -> list[LayerParameter]:
        """Return the layers that read a top of the layer ``name``, in order of the file."""
        return [
            self.layers[consumer]
            for index, layer in enumerate(self.layers)
            if layer.name == name
            for consumer in self._consumers[index]
        ]

    @staticmethod
    def of_both_phases(net: NetParameter) -> Iterator["NetGraph"]:
        """Yield the graph of the TRAIN net and that of the TEST net."""
        for phase in (TRAIN, TEST):
            yield NetGraph(layers_in_state(net, NetState(phase)))
