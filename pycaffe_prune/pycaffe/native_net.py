"""The net as the C++ half of pycaffe gives it (`python/caffe/_caffe.cpp`, `src/caffe/net.cpp`)."""

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from pycaffe_prune.engines.torch.data.memory_source import MemorySource
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, write_caffemodel
from pycaffe_prune.formats.hdf5 import write_hdf5_weights
from pycaffe_prune.formats.prototxt import read_net, refuse_carried
from pycaffe_prune.formats.weights import is_hdf5
from pycaffe_prune.net.graph import NetState
from pycaffe_prune.pycaffe.assembly import assemble
from pycaffe_prune.pycaffe.blobs import Blob, BlobVec, DtypeVec, IntVec, StringVec
from pycaffe_prune.pycaffe.debug_info import log_backward, log_forward
from pycaffe_prune.pycaffe.errors import CaffeError, CheckError
from pycaffe_prune.pycaffe.layers_of_net import LayerVec, layer_of
from pycaffe_prune.pycaffe.modes import MODES
from pycaffe_prune.pycaffe.steps import SourceStep, Step
from pycaffe_prune.pycaffe.weights import copy_blobs, load_weights, share_blobs, weights_of

__all__ = ["NativeNet"]

Callback = Callable[[int], object]
_File = str | os.PathLike[str]


class NativeNet:
    """A net, its blobs and its passes.

    ``NativeNet(network_file, phase, level=0, stages=None, weights=None)``, or in the old form
    ``NativeNet(network_file, weights, phase)``.

    Args:
        network_file: A net prototxt, of any of Caffe's forms. Its Python layers are run.
        phase: TRAIN or TEST.
        level: Of the net's state.
        stages: Of the net's state, beside those that the file states.
        weights: A file to copy weights from.

    Raises:
        CaffeError: A file cannot be opened.
        PruneError: Caffe would abort, or the engine torch does not have a layer.
        TypeError: The arguments are of neither form.
    """

    def __init__(
        self,
        network_file: _File,
        phase: int | _File,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: _File | None = None,
    ) -> None:
        if isinstance(phase, (str, os.PathLike)):
            if stages is not None or weights is not None:
                raise TypeError("Net(network_file, weights, phase) takes nothing else")
            weights, phase, level = phase, level, 0
        _require_file(network_file)
        if weights is not None:
            _require_file(weights)
        if phase not in (TRAIN, TEST):
            raise TypeError(f"a net's phase is caffe.TRAIN or caffe.TEST, not {phase!r}")
        param = read_net(Path(network_file))
        refuse_carried(param, Path(network_file), "running a net")
        chosen = TRAIN if phase == TRAIN else TEST
        self._init(param, NetState(chosen, level, (*param.state.stage, *(stages or ()))))
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def _of(cls, param: NetParameter, state: NetState) -> Self:
        """Build the net of a solver.

        Args:
            param: In the V2 form.
            state: Phase, level and stages.

        Raises:
            PruneError: Caffe would abort, or the engine torch does not have a layer.
        """
        net = cls.__new__(cls)
        net._init(param, state)
        return net

    def _init(self, param: NetParameter, state: NetState) -> None:
        self._name, self._state = param.name, state
        parts = assemble(param, state, MODES.device, MODES.draw_seed())
        self._wiring, self._parameters, self._steps = parts.wiring, parts.parameters, parts.steps
        self._all_blobs = BlobVec(parts.blobs)
        self._layers = LayerVec(layer_of(step) for step in parts.steps)
        self._callbacks: dict[str, list[Callback]] = {}
        self._passes = parts.passes
        self._debug_info = param.debug_info
        """Whether passes log the sizes of what each layer has computed; solvers set it."""
        weakref.finalize(self, _close, parts.steps)

    # What it consists of

    @property
    def layers(self) -> LayerVec:
        """The layers, Splits too, in the order of the forward pass."""
        return self._layers

    @property
    def _blobs(self) -> BlobVec:
        return self._all_blobs

    @property
    def _blob_names(self) -> StringVec:
        return StringVec(self._wiring.names)

    @property
    def _layer_names(self) -> StringVec:
        return StringVec(step.param.name for step in self._steps)

    @property
    def _blob_loss_weights(self) -> DtypeVec:
        weights = [0.0] * len(self._blobs)
        for tops, step in zip(self._wiring.tops, self._steps, strict=True):
            for number, weight in zip(tops, step.losses, strict=True):
                weights[number] = weight
        return DtypeVec(weights)

    @property
    def _inputs(self) -> IntVec:
        return IntVec(self._wiring.inputs)

    @property
    def _outputs(self) -> IntVec:
        return IntVec(self._wiring.outputs)

    def _bottom_ids(self, layer: int) -> IntVec:
        return IntVec(self._wiring.bottoms[self._place(layer)])

    def _top_ids(self, layer: int) -> IntVec:
        return IntVec(self._wiring.tops[self._place(layer)])

    # Passes

    def _forward(self, start: int, end: int) -> float:
        """Run the layers from ``start`` to ``end``, both included, and return their loss.

        Raises:
            CheckError: There is no such layer.
            PruneError: The data are damaged, or shapes do not fit any more.
        """
        self._run_forward(start, end)
        return sum(step.loss() for step in self._steps[start : end + 1])

    @torch.no_grad()
    def _run_forward(self, start: int, end: int) -> None:
        self._place(start)
        self._place(end)
        if start == 0:
            self._passes.begun += 1  # what goes on from another layer is part of the same pass
        if self._callbacks or self._debug_info:
            run = _forward_told if self._debug_info else _forward_of
            self._each(range(start, end + 1), "forward", run)
            return
        for step in self._steps[start : end + 1]:
            step.forward()

    @torch.no_grad()
    def _backward(self, start: int, end: int) -> None:
        """Run the layers from ``start`` back to ``end``, both included, from the tops' diffs.

        Gradients of parameters add up. Layers that no loss depends on, or that have nothing to
        learn and nothing to pass on, do nothing, unless the net says ``force_backward``.

        Raises:
            CheckError: There is no such layer, or one has no gradient for what needs one.
        """
        self._place(start)
        self._place(end)
        run = _backward_told if self._debug_info else _backward_of
        self._each(range(start, end - 1, -1), "backward", run)

    def _each(self, places: Iterable[int], name: str, run: Callable[[Step], object]) -> None:
        before = self._callbacks.get(f"before_{name}", ())
        after = self._callbacks.get(f"after_{name}", ())
        for place in places:
            for callback in before:
                callback(place)
            run(self._steps[place])
            for callback in after:
                callback(place)

    def _place(self, layer: int) -> int:
        if not 0 <= layer < len(self._steps):
            raise CheckError(f"the net has layers 0 to {len(self._steps) - 1}, and no {layer}")
        return layer

    def reshape(self) -> None:
        """Let the shapes of all blobs follow those that were reshaped."""
        for step in self._steps:
            step.reshape()

    def clear_param_diffs(self) -> None:
        """Make the gradients of all parameters zero."""
        self._parameters.diff.zero_()
        self._diffs_changed()

    def before_forward(self, run: Callback) -> None:
        """Call ``run`` with each layer's number before its forward pass."""
        self._callbacks.setdefault("before_forward", []).append(run)

    def after_forward(self, run: Callback) -> None:
        """Call ``run`` with each layer's number after its forward pass."""
        self._callbacks.setdefault("after_forward", []).append(run)

    def before_backward(self, run: Callback) -> None:
        """Call ``run`` with each layer's number before its backward pass."""
        self._callbacks.setdefault("before_backward", []).append(run)

    def after_backward(self, run: Callback) -> None:
        """Call ``run`` with each layer's number after its backward pass."""
        self._callbacks.setdefault("after_backward", []).append(run)

    # Weights

    def copy_from(self, source: "_File | NativeNet") -> None:
        """Copy the weights of a file, or of another net, into the layers of the same names.

        Raises:
            CaffeError: The file cannot be opened.
            CheckError: A layer has other blobs there.
            FormatError: The file is damaged.
        """
        if isinstance(source, NativeNet):
            copy_blobs(source._steps, self._steps)
            return
        _require_file(source)
        load_weights(Path(source), self._steps)

    def share_with(self, other: "NativeNet") -> None:
        """Use the weights of ``other``'s layers of the same names, as they are and will be.

        Raises:
            CheckError: A layer has other blobs there.
        """
        share_blobs(other._steps, self._steps)

    def save(self, filename: _File) -> None:
        """Write the weights as a binary caffemodel.

        Raises:
            PruneError: The folder cannot be written to or the disk is full.
        """
        write_caffemodel(Path(filename), weights_of(self._name, self._steps))

    def save_hdf5(self, filename: _File) -> None:
        """Write the weights as HDF5.

        Raises:
            PruneError: A layer's name is none for HDF5, the folder cannot be written to, or the
                disk is full.
        """
        write_hdf5_weights(Path(filename), weights_of(self._name, self._steps))

    def load_hdf5(self, filename: _File) -> None:
        """Copy the weights of an HDF5 file into the layers of the same names.

        Raises:
            CaffeError: The file cannot be opened.
            CheckError: It is no HDF5 file, or a layer has other blobs there.
            FormatError: The file is damaged.
        """
        _require_file(filename)
        if not is_hdf5(Path(filename)):
            raise CheckError(f"{filename}: is no HDF5 file; copy_from takes all kinds")
        load_weights(Path(filename), self._steps)

    # Data

    def _set_input_arrays(self, data: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
        """Give the MemoryData layer, which must come first, its images and labels.

        They are not copied.

        Raises:
            CaffeError: There is no such layer, or they are not what it takes.
        """
        step = self._steps[0]
        source = step.source if isinstance(step, SourceStep) else None
        if not isinstance(source, MemorySource):
            raise CaffeError(
                "set_input_arrays may only be called if the first layer is a MemoryDataLayer"
            )
        batch, *image = source.shapes[0]
        _require_contiguous(data, "data array", image)
        _require_contiguous(labels, "labels array", [1, 1, 1])
        if len(data) != len(labels):
            raise CaffeError("data and labels must have the same first dimension")
        if len(data) % batch:
            raise CaffeError("first dimensions of input arrays must be a multiple of batch size")
        source.hold(data, labels)

    # For solvers

    def _owned(self) -> list[tuple[BlobKey, Blob]]:
        """The blobs of parameters, those that layers share once: at their owners."""
        by_key = {
            (step.param.name, index): blob
            for step in reversed(self._steps)
            for index, blob in enumerate(step.blobs)
        }
        return [(owner.key, by_key[owner.key]) for owner in self._parameters.blobs]

    def _diffs_changed(self) -> None:
        """Say that the flat gradients of the parameters have changed."""
        for step in self._steps:
            for blob in step.blobs:
                blob._diff.touch()


def _forward_of(step: Step) -> None:
    step.forward()


def _backward_of(step: Step) -> None:
    if step.stop:
        raise CheckError(step.stop)
    if step.trains:
        step.backward()


def _forward_told(step: Step) -> None:
    step.forward()
    log_forward(step)


def _backward_told(step: Step) -> None:
    _backward_of(step)
    if step.trains:
        log_backward(step)


def _close(steps: Iterable[Step]) -> None:
    for step in steps:
        step.close()


def _require_file(path: Any) -> None:
    """`CheckFile` of `python/caffe/_caffe.cpp`."""
    try:
        with Path(path).open("rb"):
            return
    except OSError as error:
        raise CaffeError(f"Could not open file {os.fspath(path)}") from error


def _require_contiguous(array: NDArray[np.float32], name: str, image: Sequence[int]) -> None:
    """`CheckContiguousArray` of `python/caffe/_caffe.cpp`."""
    if not array.flags.c_contiguous:
        raise CaffeError(f"{name} must be C contiguous")
    if array.ndim != 4:
        raise CaffeError(f"{name} must be 4-d")
    if array.dtype != np.float32:
        raise CaffeError(f"{name} must be float32")
    for extent, wanted, told in zip(
        array.shape[1:], image, ("number of channels", "height", "width"), strict=True
    ):
        if extent != wanted:
            raise CaffeError(f"{name} has wrong {told}")
