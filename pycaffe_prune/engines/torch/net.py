"""A net of Caffe layers on PyTorch: forward, backward, weights in and out."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.torch.blob_view import BlobView
from pycaffe_prune.engines.torch.build import Step, build
from pycaffe_prune.engines.torch.by_name import load_by_name, share_by_name
from pycaffe_prune.engines.torch.data.memory_source import InputSource, MemorySource
from pycaffe_prune.engines.torch.layers.base import Saved
from pycaffe_prune.engines.torch.layers.random import RandomLayer
from pycaffe_prune.engines.torch.varying import VaryingShapes
from pycaffe_prune.errors import EngineError, SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, write_caffemodel
from pycaffe_prune.formats.caffemodel import Layer as StoredLayer
from pycaffe_prune.net.graph import NetState

__all__ = ["Net"]

_FORWARDS_APART = 1_000_003  # keys of random layers: seed, place and number of the forward pass


class Net:
    """The layers of one state of a net (`src/caffe/net.cpp`).

    Blobs have the names and shapes that they have in Caffe. Each layer that writes a blob in place
    makes a new version of it; by name one gets the last.

    Args:
        net: In the V2 form.
        state: Phase, level and stages; decides which layers there are.
        device: Where it computes.
        seed: Of the fillers and of all layers that draw random numbers.

    Raises:
        EngineError: A layer's type is not known.
        SurgeryError: The net contradicts itself.
        DataError: What a data layer reads is missing or damaged.
    """

    def __init__(
        self,
        net: NetParameter,
        state: NetState,
        device: torch.device | None = None,
        seed: int = 1,
    ) -> None:
        self.definition, self.state = net, state
        self.device = device or torch.device("cpu")
        self.seed, self._begun = seed, 0  # forward passes
        parts = build(net, state, self.device, seed)
        self.parameters = parts.parameters
        self._layers, self._flows, self._sources = parts.layers, parts.flows, parts.sources
        self._steps = parts.steps
        self._varying = VaryingShapes(parts.layers)
        self._places = {layer.name: place for place, layer in enumerate(self._layers)}
        self._slots = {
            slot: name
            for layer, flow in zip(self._layers, self._flows, strict=True)
            for name, slot in zip(layer.top, flow.tops, strict=True)
        }
        self._names = {name: slot for slot, name in self._slots.items()}
        self._values = [
            torch.zeros((), device=self.device).expand(shape or ())  # takes no memory
            for around in parts.shapes
            for shape in around.tops
        ]
        for place, source in self._sources.items():
            if isinstance(source, InputSource):  # to be written into before the first pass
                for slot, top in zip(self._flows[place].tops, source.next(), strict=True):
                    self._values[slot] = top
        self._diffs: dict[str, Tensor] = {}
        self.more_diffs: Callable[[], dict[int, Tensor]] | None = None
        """Called by `compute` between its passes: what to add to the gradients of some `values`."""
        self.more_losses: dict[str, Tensor] = {}
        """What is part of the training loss beside the net's own blobs, by a name of its own."""

    def set_input_arrays(self, data: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
        """Give the net's MemoryData layer what its batches are made of, as in pycaffe.

        Args:
            data: (images, channels, height, width); images are a multiple of the batch size.
            labels: (images,).

        Raises:
            DataError: They do not fit the layer, or each other.
            EngineError: The net has no MemoryData layer.
        """
        for source in self._sources.values():
            if isinstance(source, MemorySource):
                source.reset(data, labels)
                return
        raise EngineError(
            f"net '{self.definition.name}' has no MemoryData layer to set arrays for; write into "
            "the blobs of an Input layer instead"
        )

    # Looking at it

    @property
    def blobs(self) -> dict[str, BlobView]:
        """Every blob by name, in the order in which they are made.

        Those of an Input layer are its data: what is written into them (on a GPU into the view's
        ``tensor``) is what every pass reads, until something else is written.
        """
        own = {
            name: BlobView(self._values[slot], self._diffs.get(name))
            for name, slot in self._names.items()
        }
        return own | {name: BlobView(loss, None) for name, loss in self.more_losses.items()}

    @property
    def params(self) -> dict[str, list[BlobView]]:
        """The blobs of each layer that has some."""
        return {
            step.layer.param.name: [
                BlobView(value, diff)
                for value, diff in zip(step.params, step.param_diffs, strict=True)
            ]
            for step in self._steps.values()
            if step.params
        }

    def owner(self, key: BlobKey) -> BlobKey:
        """Return the blob whose values a layer's blob is: another layer's where it is shared.

        Raises:
            SurgeryError: There is no such layer, or it has no such blob.
        """
        layer, index = key
        step = self._steps.get(self._place(layer))
        if step is None or not 0 <= index < len(step.keys):
            raise SurgeryError(f"layer '{layer}' of the net has no blob {index} with weights")
        return step.keys[index]

    def value(self, blob: str) -> Tensor:
        """Return the last version of a blob.

        Raises:
            SurgeryError: There is no such blob.
        """
        if blob not in self._names:
            raise SurgeryError(f"the net has no blob '{blob}'; its blobs: {', '.join(self._names)}")
        return self._values[self._names[blob]]

    @property
    def outputs(self) -> list[str]:
        """The blobs that no layer reads."""
        read = {slot for flow in self._flows for slot in flow.bottoms}
        return [name for name, slot in self._names.items() if slot not in read]

    @property
    def draws(self) -> bool:
        """Whether a layer draws random numbers in each forward pass."""
        return any(
            step.saves and isinstance(step.layer, RandomLayer) for step in self._steps.values()
        )

    # Computing

    def fetch(self) -> None:
        """Let every data layer bring its next batch."""
        for place, source in self._sources.items():
            for slot, batch in zip(self._flows[place].tops, source.next(), strict=True):
                self._values[slot] = batch

    @property
    def batch(self) -> list[Tensor]:
        """The tops of the data layers, as `fetch` brought them."""
        return [self._values[slot] for slot in self.batch_slots]

    @property
    def batch_slots(self) -> list[int]:
        """Which of all `values` `batch` is."""
        return [slot for place in self._sources for slot in self._flows[place].tops]

    @property
    def steps(self) -> list[Step]:
        """The layers that compute, in the net's order."""
        return list(self._steps.values())

    def varies(self, step: Step) -> bool:
        """Whether a step may read other shapes at each pass."""
        return self._places[step.layer.param.name] in self._varying.places

    def use_batch(self, tensors: Sequence[Tensor]) -> None:
        """Put other tensors in the place of those that `fetch` brought."""
        for slot, tensor in zip(self.batch_slots, tensors, strict=True):
            self._values[slot] = tensor

    @torch.no_grad()
    def forward(
        self, start: str | None = None, end: str | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Run the layers from ``start`` to ``end`` (names, both included; None: from or to an end).

        Returns:
            The blobs that no layer reads; with ``end`` the tops of that layer.

        Raises:
            SurgeryError: There is no such layer.
            DataError: The data are damaged.
        """
        first = self._place(start) if start else 0
        last = self._place(end) if end else len(self._layers) - 1
        if first == 0:
            self._begun += 1  # what goes on from another layer is part of the same pass
        for place in range(first, last + 1):
            tops = self._sources[place].next() if place in self._sources else self._run(place)
            for slot, top in zip(self._flows[place].tops, tops, strict=True):
                self._values[slot] = top
        names = self._layers[last].top if end else self.outputs
        return {name: self.blobs[name].data for name in names}

    def _place(self, name: str) -> int:
        if name not in self._places:
            raise SurgeryError(
                f"the net has no layer '{name}'; its layers: {', '.join(self._places)}"
            )
        return self._places[name]

    def _run(self, place: int) -> tuple[Tensor, ...]:
        step, values = self._steps[place], self._values
        bottoms = [values[slot] for slot in step.flow.bottoms]
        if place in self._varying.places:
            self._varying.fit(place, step, bottoms)
        if not step.saves:
            return step.layer.forward(bottoms, step.params)
        if isinstance(step.layer, RandomLayer):
            step.layer.reseed((self.seed * _FORWARDS_APART + self._begun - 1) * 1009 + place)
        tops, step.saved = step.layer.forward_saving(bottoms, step.params)
        return tops

    @property
    def values(self) -> list[Tensor]:
        """Every version of every blob, in the order of making."""
        return list(self._values)

    def use_values(self, tensors: Sequence[Tensor]) -> None:
        """Put other tensors in the place of all `values`."""
        self._values[:] = tensors

    @property
    def loss_blobs(self) -> list[str]:
        """The blobs that are losses, in the net's order."""
        return [self._slots[slot] for step in self._steps.values() for slot in step.loss_diffs]

    def use_value(self, blob: str, tensor: Tensor) -> None:
        """Put a tensor in the place of a blob's value."""
        self._values[self._names[blob]] = tensor

    @torch.no_grad()
    def compute(self) -> None:
        """Run all but the data layers forward, then backward; gradients of parameters add up."""
        self.compute_forward()
        self._backward(None, self.more_diffs() if self.more_diffs else {})

    @torch.no_grad()
    def compute_forward(self) -> None:
        """Run all but the data layers forward."""
        values = self._values
        self._begun += 1
        for place, step in self._steps.items():
            for slot, top in zip(step.flow.tops, self._run(place), strict=True):
                values[slot] = top

    @torch.no_grad()
    def backward(self) -> None:
        """Run backward from all losses; gradients of parameters add up, those of blobs are kept.

        Of a blob that layers overwrite in place, that of its first version is kept, as in Caffe.

        Raises:
            EngineError: It is a TEST net without ``force_backward``, or there was no forward pass
                since the last backward pass.
        """
        if not any(flow.trains for flow in self._flows):
            raise EngineError(
                f"net '{self.definition.name}' has no backward pass in this phase; build it in the "
                "phase TRAIN, or say force_backward: true"
            )
        self._diffs = {}
        self._backward(self._diffs, {})

    def _backward(self, kept: dict[str, Tensor] | None, diffs: dict[int, Tensor]) -> None:
        for step in reversed(self._steps.values()):
            flow = step.flow
            if not flow.trains:
                continue
            for slot, loss_diff in step.loss_diffs.items():
                diffs[slot] = diffs[slot] + loss_diff if slot in diffs else loss_diff
            top_diffs = [diffs.pop(slot, None) for slot in flow.tops]
            if kept is not None:
                kept.update(
                    (self._slots[slot], diff)
                    for slot, diff in zip(flow.tops, top_diffs, strict=True)
                    if diff is not None
                )
            found = step.layer.backward(
                self._take_saved(step), top_diffs, flow.propagate, step.param_diffs
            )
            for slot, bottom_diff in zip(flow.bottoms, found, strict=True):
                if bottom_diff is not None:
                    diffs[slot] = diffs[slot] + bottom_diff if slot in diffs else bottom_diff
        if kept is not None:
            kept.update((self._slots[slot], diff) for slot, diff in diffs.items())

    def _take_saved(self, step: Step) -> Saved:
        saved, step.saved = step.saved, None
        if saved is None:
            raise EngineError(
                f"net '{self.definition.name}' cannot go backward from layer "
                f"'{step.layer.param.name}' on; run a forward pass first"
            )
        return saved

    # Weights in and out

    @property
    def weights(self) -> Caffemodel:
        """The net with copies of its blobs, as a snapshot has them."""
        layers = []
        for place, layer in enumerate(self._layers):
            step = self._steps.get(place)
            blobs = tuple(param.cpu().numpy().copy() for param in step.params) if step else ()
            layers.append(StoredLayer(layer, blobs))
        return Caffemodel(tuple(layers), NetParameter(name=self.definition.name))

    def save(self, path: Path) -> None:
        """Write the weights as a caffemodel, atomically.

        Raises:
            PruneError: The folder cannot be written to or the disk is full.
        """
        write_caffemodel(path, self.weights)

    def copy_from(self, path: Path) -> None:
        """Load weights by the names of their layers (`Net::CopyTrainedLayersFrom`).

        Layers of the file that the net has not are passed over, layers of the net that the file
        has not keep their values.

        Args:
            path: Any file that `formats.weights.read_weights` reads.

        Raises:
            FormatError: The file is damaged.
            SurgeryError: A layer's blobs are not as many, or not of the shapes, that the net has.
        """
        load_by_name(path, self._steps.values())

    def share_with(self, other: "Net") -> None:
        """Use the blobs of ``other``'s layers of the same names (`Net::ShareTrainedLayersWith`).

        Raises:
            SurgeryError: Their shapes differ.
        """
        share_by_name(self._steps.values(), other._steps.values())

    def redirect(self, owner: BlobKey, tensor: Tensor) -> None:
        """Let all layers that have this blob read ``tensor`` in its place; gradients stay its own.

        Args:
            owner: As `owner` returns it.
            tensor: As many values as the blob has.
        """
        for step in self._steps.values():
            for place, key in enumerate(step.keys):
                if key == owner:
                    step.params[place] = tensor.view(step.params[place].shape)

    # Places in the data

    def seek(self, forwards: int) -> None:
        """Go to where data and random numbers are after so many forward passes from the start.

        Hidden states become zeros: what they were is nowhere told, nor in Caffe's snapshots.
        """
        self._begun = forwards
        for source in self._sources.values():
            source.seek(forwards)
        for step in self._steps.values():
            for state in step.layer.states:
                state.zero_()

    def close(self) -> None:
        """Let go of the data."""
        for source in self._sources.values():
            source.close()
