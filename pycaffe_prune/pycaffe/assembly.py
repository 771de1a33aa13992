"""From the definition of a net to its steps, one after the other as Caffe sets layers up."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from pycaffe_prune.engines.torch.initial import fill_parameters
from pycaffe_prune.engines.torch.parameters import Parameters, learnables
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import LayerParameter, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.no_backward import stop_of
from pycaffe_prune.net.setup_checks import refuse_repeated_tops
from pycaffe_prune.net.splits import insert_splits
from pycaffe_prune.net.wiring import Wiring, backward_needs, name_losses, wire
from pycaffe_prune.pycaffe.blobs import Blob
from pycaffe_prune.pycaffe.engine_step import EngineStep
from pycaffe_prune.pycaffe.memory import Memory, new_memory
from pycaffe_prune.pycaffe.python_step import PythonStep
from pycaffe_prune.pycaffe.steps import Passes, Place, SharingStep, SourceStep, SplitStep, Step

__all__ = ["STEPS", "Assembled", "assemble"]

STEPS: Mapping[str, Callable[[Place], Step]] = {
    "Flatten": SharingStep,
    "Input": Step,
    "Parameter": SharingStep,
    "Python": PythonStep,
    "Reshape": SharingStep,
    "Split": SplitStep,
}
"""What makes the layers of each type that is not one of the engine's."""

_SHARING_ONE = frozenset({"Concat", "Slice"})
"""Types that have nothing to do where they have one bottom and one top."""


@dataclass(frozen=True)
class Assembled:
    """A net in its parts."""

    wiring: Wiring
    blobs: list[Blob]
    steps: list[Step]
    parameters: Parameters
    """The blobs of all layers; those that share one have one."""
    passes: Passes


def assemble(net: NetParameter, state: NetState, device: torch.device, seed: int) -> Assembled:
    """Build the layers that a net has in a state, with what their fillers give.

    Args:
        net: In the V2 form; its Python layers are run.
        state: Phase, level and stages.
        device: Where it computes.
        seed: Of the fillers and of all that is drawn at random.

    Raises:
        PruneError: Caffe would abort, or the engine torch does not have a layer.
    """
    layers = _layers(net, state)
    wiring = wire(layers)
    blobs = [Blob((), device) for _ in wiring.names]
    passes = Passes(seed)
    with ExitStack() as opened:
        steps = []
        for number, param in enumerate(layers):
            bottoms, tops = (
                [blobs[place] for place in side[number]] for side in (wiring.bottoms, wiring.tops)
            )
            step = _step(Place(param, bottoms, tops, number, device, passes))
            opened.callback(step.close)
            step.set_up()
            step.weigh_losses()
            steps.append(step)
        parameters = _adopt(layers, steps, device, seed)
        _plan(layers, wiring, steps, force=net.force_backward)
        opened.pop_all()  # from here on they are the net's to close
    return Assembled(wiring, blobs, steps, parameters, passes)


def _layers(net: NetParameter, state: NetState) -> list[LayerParameter]:
    chosen = layers_in_state(net, state)
    refuse_repeated_tops(chosen)
    layers = insert_splits(chosen)
    refuse_repeated_tops(layers)
    name_losses(layers)
    for layer in layers:
        if not layer.HasField("phase"):
            layer.phase = state.phase
    return layers


def _step(place: Place) -> Step:
    kind = STEPS.get(place.param.type)
    if place.param.type in _SHARING_ONE and len(place.bottoms) == len(place.tops) == 1:
        kind = SharingStep
    if kind is None:
        kind = EngineStep if place.param.bottom else SourceStep
    return kind(place)


def _adopt(
    layers: Sequence[LayerParameter], steps: Sequence[Step], device: torch.device, seed: int
) -> Parameters:
    """Lay the blobs of all layers into one memory, filled."""
    shapes = [[blob._shape for blob in step.blobs] for step in steps]
    _refuse_twins(layers, steps)
    found, owners = learnables(layers, shapes)
    parameters = Parameters(found, device)
    fill_parameters(layers, parameters, seed)
    memories: dict[BlobKey, tuple[Memory, Memory]] = {}
    for layer, index, blob in _placed(layers, steps):
        key = (layer.name, index)
        owner = owners.get(key, key)
        if owner not in memories:
            start, stop = parameters.place(owner)
            values = parameters.data[start:stop]
            if layer.type == "Python":
                values.copy_(blob._read().flatten())  # what its setup has written
            diffs = parameters.diff[start:stop]
            memories[owner] = new_memory(device, values), new_memory(device, diffs)
        blob._data, blob._diff = memories[owner]
    return parameters


def _placed(
    layers: Sequence[LayerParameter], steps: Sequence[Step]
) -> Iterator[tuple[LayerParameter, int, Blob]]:
    for layer, step in zip(layers, steps, strict=True):
        for index, blob in enumerate(step.blobs):
            yield layer, index, blob


def _refuse_twins(layers: Sequence[LayerParameter], steps: Sequence[Step]) -> None:
    seen: set[BlobKey] = set()
    for layer, index, _ in _placed(layers, steps):
        if (layer.name, index) in seen:
            raise SurgeryError(
                f"two layers with blobs are called '{layer.name}', and weights belong to layers by "
                "name; rename one"
            )
        seen.add((layer.name, index))


def _plan(
    layers: Sequence[LayerParameter], wiring: Wiring, steps: Sequence[Step], *, force: bool
) -> None:
    """Tell each step what of the backward pass is its own."""
    losses, counts = [step.losses for step in steps], [len(step.blobs) for step in steps]
    needs = backward_needs(layers, wiring, losses, counts, force=force)
    makers: dict[int, Step] = {}
    for number, step in enumerate(steps):
        step.trains = needs.layers[number]
        step.propagate, step.learns = needs.bottoms[number], needs.params[number]
        step.stop = stop_of(step.param, step.propagate) if step.trains else None
        bottoms, tops = wiring.bottoms[number], wiring.tops[number]
        if isinstance(step, EngineStep) and len(bottoms) == 1 and bottoms == tops:
            maker = makers[bottoms[0]]
            step.may_overwrite = isinstance(maker, EngineStep) and not maker.layer.keeps_top
        makers.update((top, step) for top in tops)
        step.settle()
