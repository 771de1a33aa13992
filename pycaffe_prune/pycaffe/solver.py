"""What solvers of all types do (`src/caffe/solver.cpp`)."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from pycaffe_prune.engines.resolved_solver import solver_settings
from pycaffe_prune.engines.torch.rates import RatePolicy
from pycaffe_prune.engines.torch.updates import bias_correction, make_update
from pycaffe_prune.formats.caffe_pb2 import SolverParameter as Message
from pycaffe_prune.pycaffe.debug_info import log_totals
from pycaffe_prune.pycaffe.errors import CaffeError, CheckError
from pycaffe_prune.pycaffe.flat_blobs import FlatBlobs
from pycaffe_prune.pycaffe.glog import log, number
from pycaffe_prune.pycaffe.modes import MODES
from pycaffe_prune.pycaffe.net import Net
from pycaffe_prune.pycaffe.scores import log_outputs, log_scores
from pycaffe_prune.pycaffe.solver_files import read_param, restore, write_snapshot
from pycaffe_prune.pycaffe.solver_nets import StatedNet, test_nets_of, train_net_of

__all__ = ["NetVec", "Solver", "SolverParameter"]

_File = str | os.PathLike[str]
_Callback = Callable[[], object]


class NetVec(list[Net]):
    """The test nets of a solver."""


class SolverParameter:
    """What scripts see of a solver's own numbers; a new ``base_lr`` holds from the next update."""

    def __init__(self, message: Message) -> None:
        self._message = message

    @property
    def max_iter(self) -> int:
        """How many iterations `Solver.solve` goes to."""
        return self._message.max_iter

    @property
    def display(self) -> int:
        """Iterations between two lines of the log."""
        return self._message.display

    @property
    def layer_wise_reduce(self) -> bool:
        """How several GPUs would exchange gradients."""
        return self._message.layer_wise_reduce

    @property
    def base_lr(self) -> float:
        """The learning rate that the policy begins with."""
        return self._message.base_lr

    @base_lr.setter
    def base_lr(self, rate: float) -> None:
        self._message.base_lr = rate


class Solver:
    """Trains a net and tests others with its weights.

    Files that a solver names are looked for from the working folder. Its ``type`` is that of the
    class, whatever the file says; ``solver_mode`` and ``device_id`` are those of the process
    (`caffe.set_mode_gpu`).

    Args:
        param_file: A solver prototxt. Its nets are the script's own: their Python layers are run.

    Raises:
        CheckError: Caffe would abort.
        PruneError: A file is damaged, or the engine torch does not have a layer.
        RuntimeError: The class is `Solver` itself.
    """

    _type: ClassVar[str] = ""

    def __init__(self, param_file: _File) -> None:
        self._begin(read_param(param_file))

    @classmethod
    def _of(cls, param: Message) -> Self:
        solver = cls.__new__(cls)
        solver._begin(param)
        return solver

    def _begin(self, param: Message) -> None:
        if not self._type:
            raise RuntimeError("This class cannot be instantiated from Python")
        _require_sense(param)
        self._message = param
        param.type = self._type
        if param.random_seed >= 0:
            MODES.set_random_seed(param.random_seed)
        self._net = _net_with_weights(train_net_of(param), param)
        self._test_nets = NetVec(_net_with_weights(test, param) for test in test_nets_of(param))
        for test_net in self._test_nets:
            test_net._debug_info = param.debug_info
        self._flat = FlatBlobs(self._net)
        parameters = self._net._parameters
        self._update = make_update(param, parameters.groups, parameters.data, parameters.diff)
        self._rate = torch.zeros((), device=parameters.data.device)
        self._iteration = self._current_step = 0
        self._change_is_shown = True
        self._callbacks: list[tuple[_Callback, _Callback]] = []
        self._losses: list[float] = []
        self._smoothed = 0.0
        self._clock, self._last_logged = time.perf_counter(), 0

    # What it consists of

    @property
    def net(self) -> Net:
        """The net that is trained."""
        return self._net

    @property
    def test_nets(self) -> NetVec:
        """The nets that are tested; they have the weights of `net` from their first test on."""
        return self._test_nets

    @property
    def iter(self) -> int:
        """Updates done so far."""
        return self._iteration

    @property
    def param(self) -> SolverParameter:
        """What the solver's file says."""
        return SolverParameter(self._message)

    def add_callback(self, on_start: _Callback, *on_gradients_ready: _Callback) -> None:
        """Call a function before the passes of each iteration, and one before its update.

        Raises:
            CaffeError: There is one argument alone, as for NCCL.
        """
        if len(on_gradients_ready) != 1:
            raise CaffeError(
                "add_callback takes two functions: one called before the passes of each iteration, "
                "one before its update; there is no NCCL here"
            )
        self._callbacks.append((on_start, *on_gradients_ready))

    def share_weights(self, net: Net) -> None:
        """Let the layers of another net use the weights of those of the same names in `net`.

        Raises:
            CheckError: A layer has other blobs there.
        """
        net.share_with(self._net)

    # Training

    def solve(self, resume_file: _File | None = None) -> None:
        """Train up to ``max_iter``, with tests, log and snapshots at their times.

        Args:
            resume_file: A solverstate to begin with.

        Raises:
            PruneError: The data or the solverstate are damaged, or a snapshot cannot be written.
        """
        param = self._message
        log(f"Solving {self._net._name}")
        log(f"Learning Rate Policy: {param.lr_policy}")
        if resume_file is not None:
            log(f"Restoring previous solver status from {os.fspath(resume_file)}")
            self.restore(resume_file)
        start = self._iteration
        self.step(param.max_iter - self._iteration)
        if param.snapshot_after_train and not _is_due(param.snapshot, self._iteration):
            self.snapshot()
        if _is_due(param.display, self._iteration):
            self._smooth(self._net._forward(0, len(self._net.layers) - 1), start)
            log(f"Iteration {self._iteration}, loss = {number(self._smoothed)}")
        if _is_due(param.test_interval, self._iteration):
            self.test_all()
        log("Optimization Done.")

    def step(self, iters: int) -> None:
        """Run so many iterations.

        After it the gradients of the parameters are what the last update took from their values,
        and the blobs hold the last batch.

        Raises:
            PruneError: The data are damaged, or a snapshot cannot be written.
        """
        start = self._iteration
        self._losses, self._smoothed = [], 0.0
        self._clock = time.perf_counter()
        for _ in range(iters):
            self._iterate(start)
        self._show_change()

    def _iterate(self, start: int) -> None:
        param, net = self._message, self._net
        net.clear_param_diffs()
        self._change_is_shown = True  # nothing is left of the last one
        if _is_due(param.test_interval, self._iteration) and (
            self._iteration > 0 or param.test_initialization
        ):
            self.test_all()
        for on_start, _ in self._callbacks:
            on_start()
        is_displayed = _is_due(param.display, self._iteration)
        net._debug_info = is_displayed and param.debug_info
        loss = self._passes()
        if param.display:
            self._smooth(loss, start)
        if is_displayed:
            self._log_iteration()
            log_outputs(net)
        for _, on_gradients_ready in self._callbacks:
            on_gradients_ready()
        self._change()
        if _is_due(param.snapshot, self._iteration):
            self.snapshot()

    def _log_iteration(self) -> None:
        now = time.perf_counter()
        seconds, iterations = now - self._clock, self._iteration - self._last_logged
        log(
            f"Iteration {self._iteration} ({number(iterations / (seconds or 1))} iter/s, "
            f"{number(seconds)}s/{self._message.display} iters), loss = {number(self._smoothed)}"
        )
        self._clock, self._last_logged = now, self._iteration

    def _passes(self) -> float:
        """Run a batch forward and back, ``iter_size`` times; the loss if somebody looks at it."""
        param, net, last = self._message, self._net, len(self._net.layers) - 1
        loss = 0.0
        for _ in range(param.iter_size):
            if param.display:
                loss += net._forward(0, last)
            else:
                net._run_forward(0, last)
            net._backward(last, 0)
            if net._debug_info:
                log_totals([blob for _, blob in net._owned()])
        return loss / param.iter_size

    def _smooth(self, loss: float, start: int) -> None:
        """`Solver::UpdateSmoothedLoss`: the mean of the last ``average_loss`` losses."""
        losses, most = self._losses, self._message.average_loss
        if len(losses) < most:
            losses.append(loss)
            self._smoothed += (loss - self._smoothed) / len(losses)
        else:
            place = (self._iteration - start) % most
            self._smoothed += (loss - losses[place]) / most
            losses[place] = loss

    def apply_update(self) -> None:
        """Update the weights by their gradients as they are, and count an iteration."""
        self._change()
        self._show_change()

    @torch.no_grad()
    def _change(self) -> None:
        param = self._message
        rate = self._learning_rate()
        if _is_due(param.display, self._iteration):
            log(f"Iteration {self._iteration}, lr = {number(rate)}")
        self._rate.fill_(rate * bias_correction(param, self._iteration))
        self._flat.gather()
        self._update.change(self._rate)
        self._flat.spread()
        self._iteration += 1
        self._change_is_shown = False

    def _show_change(self) -> None:
        """Let the gradients be what the last update took from the values, as they are in Caffe."""
        if not self._change_is_shown:
            self._update.show_change(self._rate)
            self._flat.spread_diffs()
            self._change_is_shown = True

    def _learning_rate(self) -> float:
        policy = RatePolicy(solver_settings(self._message), self._current_step)
        rate = policy.rate(self._iteration)
        if self._message.lr_policy == "multistep" and policy.current_step != self._current_step:
            log(f"MultiStep Status: Iteration {self._iteration}, step = {policy.current_step}")
        self._current_step = policy.current_step
        return rate

    # Testing

    def test_all(self) -> None:
        """Test every test net with the weights as they are, and log what comes out.

        Raises:
            PruneError: The data are damaged.
        """
        for place, (net, times) in enumerate(
            zip(self._test_nets, self._message.test_iter, strict=True)
        ):
            log(f"Iteration {self._iteration}, Testing net (#{place})")
            net.share_with(self._net)
            log_scores(net, times, with_loss=self._message.test_compute_loss)

    # Snapshots

    @property
    def _history(self) -> list[Tensor]:
        views = self._net._parameters.views
        return [view for flat in self._update.history for view in views(flat)]

    def snapshot(self) -> None:
        """Write ``<snapshot_prefix>_iter_<iter>`` .caffemodel and .solverstate (HDF5: with .h5).

        With ``snapshot_diff`` the gradients lie beside the weights.

        Raises:
            PruneError: The folder cannot be written to or the disk is full.
        """
        if self._message.snapshot_diff:
            self._show_change()
        write_snapshot(self._message, self._net, self._iteration, self._history, self._current_step)

    @torch.no_grad()
    def restore(self, state_file: _File) -> None:
        """Go on from a snapshot, ours or the real Caffe's; the data begin where they are.

        Raises:
            FormatError: It is damaged, or its weights are not there.
            SurgeryError: It belongs to another net or another type of solver.
        """
        self._iteration, self._current_step = restore(Path(state_file), self._net, self._history)


def _is_due(interval: int, iteration: int) -> bool:
    return interval != 0 and iteration % interval == 0


def _require_sense(param: Message) -> None:
    for name in ("average_loss", "iter_size"):
        if (value := getattr(param, name)) < 1:
            raise CheckError(f"the solver's {name} is {value}; it has to be 1 or more")
    folder = Path(param.snapshot_prefix).parent
    if param.snapshot and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise CheckError(
            f"cannot write to snapshot prefix '{param.snapshot_prefix}'; make sure that the "
            "directory exists and is writable"
        )


def _net_with_weights(stated: StatedNet, param: Message) -> Net:
    net = Net._of(*stated)
    for names in param.weights:
        for name in names.split(","):
            log(f"Finetuning from {name.strip()}")
            net.copy_from(name.strip())
    return net
