"""Caffe's solver on PyTorch: iterations, masks, snapshots."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pycaffe_prune.engines.caffe.caffe_worker.mask_state import read_mask_state, write_mask_state
from pycaffe_prune.engines.distillation import Distillation
from pycaffe_prune.engines.masking import Masking
from pycaffe_prune.engines.solver_nets import test_states
from pycaffe_prune.engines.torch.compaction import Compaction
from pycaffe_prune.engines.torch.last_change import LastChange
from pycaffe_prune.engines.torch.masks import Masks
from pycaffe_prune.engines.torch.moving_masks import MovingMasks, make_moving
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.products import Product, kept_layers, measured
from pycaffe_prune.engines.torch.snapshots import read_snapshot, write_snapshot
from pycaffe_prune.engines.torch.stepping import Stepping
from pycaffe_prune.engines.torch.teacher import Teacher
from pycaffe_prune.engines.torch.tied import Tied
from pycaffe_prune.engines.torch.updates import make_update
from pycaffe_prune.engines.tying import Tying
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter, SolverParameter
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.net.graph import NetState

__all__ = ["Solver"]


class Solver:
    """Trains a net as `src/caffe/solver.cpp` does.

    In one iteration gradients of ``iter_size`` passes add up, are masked, clipped, divided, decayed
    and applied, in this order.

    Args:
        param: The solver.
        net: Its net, in the V2 form.
        device: Where it computes.

    Raises:
        FormatError: The solver's type or policy is not known.
        EngineError, SurgeryError, DataError: As `Net`.
    """

    def __init__(
        self, param: SolverParameter, net: NetParameter, device: torch.device | None = None
    ) -> None:
        self.param = param
        seed = max(param.random_seed, 0)
        self.masks: Masks | None = None
        self._compaction: Compaction | None = None
        self.moving: MovingMasks | None = None
        self.teacher: Teacher | None = None
        self.tied: Tied | None = None
        with ExitStack() as opened:
            self.net = Net(net, NetState(TRAIN), device, seed)
            opened.callback(self.net.close)
            # As in Caffe none for a solver that never tests: the net may have no phase TEST.
            self.test_nets = [Net(net, state, device, seed) for state in test_states(param)]
            for test_net in self.test_nets:
                opened.callback(test_net.close)
            parameters = self.net.parameters
            self.update = make_update(param, parameters.groups, parameters.data, parameters.diff)
            self._last = LastChange(self.net, self.update) if param.snapshot_diff else None
            self.stepping = Stepping(param, self.net, self.net.compute, self._apply)
            opened.pop_all()  # from here on `close` is the caller's

    @property
    def iter(self) -> int:
        """Updates done so far."""
        return self.stepping.iteration

    def mask(self, masks: Mapping[BlobKey, NDArray[np.bool_]]) -> None:
        """Keep the weights at False of each mask at exactly zero from now on.

        Args:
            masks: By layer and blob index, boolean, in the blob's shape; True = kept.

        Raises:
            SurgeryError: A mask does not fit its blob.
        """
        self.masks = Masks(self.net, masks)
        self._zero_masked()
        self.update.keep(self.masks.bits)
        self._compaction = None
        self.stepping.renew()

    def measured_products(self) -> tuple[Product, ...]:
        """Measure how masked layers are computed fastest; none where masks change, say.

        See `products.measured`.

        Raises:
            DataError: The data are damaged.
        """
        if self.masks is None or self.moving or self.tied or self._last:
            return ()
        forwards = self.iter * self.param.iter_size
        return measured(self.param, self.net, self.masks.bits, forwards)

    def compute_by(self, products: Sequence[Product]) -> None:
        """Compute masked layers so from now on, until there are other masks.

        To rounding all ways have the same outcome. At the end of each `step` all is as it is
        without: blobs and history are whole, and zero where they are masked.

        Args:
            products: As `measured_products` returns them; other layers are computed densely.
        """
        self._compaction = None
        if self.masks is None or self.moving or self.tied or self._last:
            return
        ways = {(product.layer, 0): product.way for product in products}
        layers = kept_layers(self.net, self.masks.bits, ways)
        if layers:
            self._compaction = Compaction(self.param, self.net, self.masks.bits, layers)

    def follow(self, masking: Masking, start: Mapping[BlobKey, NDArray[np.bool_]]) -> None:
        """Let masks change, or weights lie on few levels, while the net trains, from now on.

        Args:
            masking: How they change.
            start: Masks to begin with, as for `mask`; those that ``masking`` does not name stay.

        Raises:
            SurgeryError: A mask does not fit its blob, or there is no such blob.
        """
        seed = max(self.param.random_seed, 0)
        self._compaction = None
        self.moving = make_moving(self.net, self.update, masking, start, seed)
        self.stepping.begin = self.moving.begin
        self.stepping.renew()

    def learn_from(self, teacher: NetParameter, told: Distillation) -> None:
        """Let a teacher have its part in the loss, from now on.

        Args:
            teacher: Its net, with Input layers for its data.
            told: What of it and the student goes together, and how.

        Raises:
            EngineError: A layer's type is not known.
            SurgeryError: The teacher's weights do not fit.
        """
        self.teacher = Teacher(self.net, teacher, told)
        self.stepping.renew()

    def tie(self, tying: Tying, masks: Mapping[BlobKey, NDArray[np.bool_]]) -> None:
        """Keep weights equal that are equal now, and at zero what is zero or masked.

        Args:
            tying: In which blobs.
            masks: As for `mask`, for whatever blobs.

        Raises:
            SurgeryError: A mask does not fit its blob, or there is no such blob.
            SystemExit: A weight that is to be tied is NaN or infinite.
        """
        self._compaction = None
        self.tied = Tied(self.net, tying, masks)
        self.update.keep(self.tied.bits)
        self.stepping.renew()

    def _apply(self, rate: Tensor) -> None:
        if self.tied:
            self.tied.gather(self.net.parameters.diff)
        (self._last or (self._compaction or self).update).apply(rate)
        if self.tied:
            self.tied.spread()

    def revived(self) -> int:
        """Count the weights that are to be zero, by masks or by what is tied, and are not."""
        return sum(each.revived() for each in (self.masks, self.moving, self.tied) if each)

    def _zero_masked(self) -> None:
        if self.masks:
            self.masks.zero(self.net.parameters.data)
            for flat in self.update.history:
                self.masks.zero(flat)  # or momentum would move what was trained before

    def step(self, iterations: int) -> None:
        """Run so many iterations.

        Raises:
            DataError: The data are damaged.
        """
        data, history = self.net.parameters.data, self.update.history
        with self._compaction.held(data, history) if self._compaction else nullcontext():
            self.stepping.run(iterations)
        if self.moving:
            self.moving.settle()

    @property
    def history(self) -> list[Tensor]:
        """The history's blobs in the order of a solverstate."""
        return [view for flat in self.update.history for view in self.net.parameters.views(flat)]

    def snapshot(self, prefix: Path) -> None:
        """Write ``prefix``.caffemodel and ``prefix``.solverstate, which the real Caffe resumes.

        Where masks change, they lie beside, and the weights are those to go on with. With
        ``snapshot_diff`` what the last update took from the weights lies beside them.

        Raises:
            PruneError: The folder cannot be written to or the disk is full.
        """
        history = [view.cpu().numpy() for view in self.history]
        step = self.stepping.policy.current_step
        weights = self.net.weights
        if self.moving:
            weights = self.moving.to_go_on_with(weights)
            if self.moving.moves_masks:
                write_mask_state(str(prefix), self.moving.kept, self.moving.limits)
        if self._last:
            weights = self._last.beside(weights)
        write_snapshot(prefix, weights, self.iter, history, step)

    def restore(self, state: Path) -> None:
        """Go on from a snapshot, ours or the real Caffe's: weights, history, place in the data.

        What is masked is zero in the solver, whatever it is in the snapshot.

        Raises:
            FormatError: It is damaged.
            SurgeryError: It belongs to another net or another type of solver.
            EngineError: Weights live in it that its masks prune for good, or are not equal that are
                tied.
        """
        history = self.history
        found = read_snapshot(state, [tuple(view.shape) for view in history])
        self.net.copy_from(found.weights)
        for view, blob in zip(history, found.history, strict=True):
            view.copy_(torch.from_numpy(np.array(blob, np.float32)))
        self.stepping.iteration = found.iteration
        self.stepping.policy.current_step = found.current_step
        self.net.seek(self.iter * self.param.iter_size)
        self._zero_masked()
        if self.tied and (parted := self.tied.parted()):
            raise EngineError(
                f"{state}: {parted} weights have not their group's value; it is damaged, remove it"
            )
        if self.moving:
            moves = self.moving.moves_masks
            found_masks = read_mask_state(str(state.with_suffix(""))) if moves else ([], [])
            alive = self.moving.restore(*found_masks)
            if alive:
                raise EngineError(
                    f"{state}: {alive} masked weights are not zero; it is damaged, remove it"
                )

    def close(self) -> None:
        """Let go of the data."""
        if self.teacher:
            self.teacher.close()
        for net in (self.net, *self.test_nets):
            net.close()
