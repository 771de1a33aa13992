"""A net as a graph: states, producers, consumers, in-place layers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import (
    TEST,
    TRAIN,
    LayerParameter,
    NetParameter,
    NetStateRule,
    Phase,
)

__all__ = ["NetGraph", "NetState", "Top", "layers_in_state", "states_of", "with_state"]


@dataclass(frozen=True)
class NetState:
    """What decides which layers a net has: Caffe's NetState."""

    phase: Phase = TEST
    level: int = 0
    stages: tuple[str, ...] = ()

    @classmethod
    def of(cls, net: NetParameter, phase: Phase) -> "NetState":
        """Return the state of ``net`` in a phase: level and stages are those of its ``state``.

        As pycaffe's ``Net(file, phase)`` builds it (`Net_Init` of `python/caffe/_caffe.cpp`).
        """
        return cls(phase, net.state.level, tuple(net.state.stage))


def with_state(net: NetParameter, level: int | None, stages: Sequence[str]) -> NetParameter:
    """Return ``net`` with another level (None: its own) and more stages in its ``state``.

    As pycaffe's ``Net(file, phase, level, stages)`` takes them (`Net_Init` of
    `python/caffe/_caffe.cpp`).
    """
    new = NetParameter()
    new.CopyFrom(net)
    if level is not None:
        new.state.level = level
    new.state.stage.extend(stages)
    return new


def _meets(rule: NetStateRule, state: NetState) -> bool:
    """`Net::StateMeetsRule` of `src/caffe/net.cpp`."""
    return not (
        (rule.HasField("phase") and rule.phase != state.phase)
        or (rule.HasField("min_level") and state.level < rule.min_level)
        or (rule.HasField("max_level") and state.level > rule.max_level)
        or any(stage not in state.stages for stage in rule.stage)
        or any(stage in state.stages for stage in rule.not_stage)
    )


def _is_in(layer: LayerParameter, state: NetState) -> bool:
    if layer.include and layer.exclude:
        raise SurgeryError(
            f"layer '{layer.name}' ({layer.type}) has include and exclude rules, of which Caffe "
            "takes one kind only; remove one of them"
        )
    if layer.include:
        return any(_meets(rule, state) for rule in layer.include)
    return not any(_meets(rule, state) for rule in layer.exclude)


def layers_in_state(net: NetParameter, state: NetState) -> list[LayerParameter]:
    """Return the layers that Caffe would build for ``state`` (`Net::FilterNet`).

    A layer without rules is always in; one with ``include`` rules is in when any is met, one with
    ``exclude`` rules when none is.

    Raises:
        SurgeryError: A layer has both kinds of rules.
    """
    return [layer for layer in net.layer if _is_in(layer, state)]


def states_of(net: NetParameter) -> list[NetState]:
    """Return the states in which a net is used: both phases, its own state and with each stage."""
    stages = {
        stage
        for layer in net.layer
        for rules in (layer.include, layer.exclude)
        for rule in rules
        for stage in (*rule.stage, *rule.not_stage)
    }
    return [
        NetState(phase, net.state.level, (*net.state.stage, *chosen))
        for phase in (TRAIN, TEST)
        for chosen in ((), *((stage,) for stage in sorted(stages.difference(net.state.stage))))
    ]


class Top(NamedTuple):
    """One top of one layer: a version of a blob."""

    layer: int
    """The layer's place in `NetGraph.layers`."""
    number: int
    """Which of the layer's tops."""


class NetGraph:
    """Who produces and who consumes which blob, for one state of a net.

    A blob that is written in place has several versions; each consumer reads the latest one
    before it, in the order of the file, as Caffe does.
    """

    def __init__(self, layers: Sequence[LayerParameter]) -> None:
        self.layers = tuple(layers)
        self.bottoms: list[tuple[Top | None, ...]] = []
        """Per layer and bottom, the top that it reads; None when no layer makes it."""
        self._readers: dict[Top, list[int]] = {}
        latest: dict[str, Top] = {}
        for place, layer in enumerate(self.layers):
            self.bottoms.append(tuple(latest.get(bottom) for bottom in layer.bottom))
            for source in self.bottoms[-1]:
                if source is not None:
                    self._readers.setdefault(source, []).append(place)
            for number, top in enumerate(layer.top):
                latest[top] = Top(place, number)

    def tops(self) -> Iterator[Top]:
        """Yield every top of every layer, in order of the file."""
        for place, layer in enumerate(self.layers):
            for number in range(len(layer.top)):
                yield Top(place, number)

    def readers(self, top: Top) -> list[LayerParameter]:
        """Return the layers that read ``top``, in order of the file."""
        return [self.layers[place] for place in self._readers.get(top, ())]

    def ancestors(self, places: Iterable[int]) -> set[int]:
        """Return the places of the layers that those at ``places`` depend on, these included."""
        found: set[int] = set()
        waiting = list(places)
        while waiting:
            place = waiting.pop()
            if place not in found:
                found.add(place)
                waiting += [top.layer for top in self.bottoms[place] if top is not None]
        return found

    def consumers(self, name: str) -> list[LayerParameter]:
        """Return the layers that read a top of the layer ``name``, in order of the file."""
        places = {
            reader: None
            for top in self.tops()
            if self.layers[top.layer].name == name
            for reader in self._readers.get(top, ())
        }
        return [self.layers[place] for place in sorted(places)]

    @staticmethod
    def of_all_states(net: NetParameter) -> Iterator["NetGraph"]:
        """Yield the graph of each state of `states_of`, those with the same layers once."""
        seen: set[tuple[bool, ...]] = set()
        for state in states_of(net):
            members = tuple(_is_in(layer, state) for layer in net.layer)
            if members not in seen:
                seen.add(members)
                yield NetGraph(_chosen(net.layer, members))


def _chosen(layers: Iterable[LayerParameter], members: Iterable[bool]) -> list[LayerParameter]:
    return [layer for layer, member in zip(layers, members, strict=True) if member]
