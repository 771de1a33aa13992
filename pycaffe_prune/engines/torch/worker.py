"""The child process in which the torch engine works: one job after the other, from standard input.

A line on standard input is a request; what happens comes back as JSON lines on standard output, as
from `engines.caffe.caffe_worker`, up to one that says ``{"event": "end"}``, or ``"last"`` where the
process is of no more use. An error ends the process: its last line on standard error, which goes to
the run's ``engine.log``, says why.
"""

import ctypes
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pycaffe_prune.engines.caffe.caffe_worker import loop
from pycaffe_prune.engines.caffe.caffe_worker.snapshots import (
    SNAPSHOT,
    drop_snapshots,
    snapshots_in,
    write_sums,
)
from pycaffe_prune.engines.caffe.caffe_worker.testing import MeansTester, Tester, make_tester
from pycaffe_prune.engines.curvature import CurvatureJob
from pycaffe_prune.engines.distillation import Distillation
from pycaffe_prune.engines.job import ForwardJob
from pycaffe_prune.engines.masking import Masking
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.torch.curvature import (
    curvature_net,
    fisher_diagonal,
    hessian_diagonal,
    require_reached,
)
from pycaffe_prune.engines.torch.masks import Masks
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.pack import Rendezvous, pack_key
from pycaffe_prune.engines.torch.products import Product, read_products, write_products
from pycaffe_prune.engines.torch.request import Request
from pycaffe_prune.engines.torch.solver import Solver
from pycaffe_prune.engines.torch.stacked import can_be_stacked
from pycaffe_prune.engines.trusted_layers import anchored_output
from pycaffe_prune.engines.tying import Tying
from pycaffe_prune.errors import EngineError, PruneError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.net.graph import NetState
from pycaffe_prune.net.inference import inference_net

__all__ = ["main", "prepare_process"]

Emit = Callable[..., None]
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt
_KEEP_BYTES = 2**31 - 1
_PARENT_SECONDS = 0.1
_MASKING: TypeAdapter[Masking] = TypeAdapter(Masking)
_broken: list[RuntimeError] = []  # after an error on a GPU nothing there works in this process


def main() -> None:
    """Serve requests until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.stop_asked.append(True))
    threading.Thread(target=_end_with_parent, args=(_parent(),), daemon=True).start()
    emit = _emitter()
    for line in sys.stdin:
        request = Request.model_validate_json(line)
        folders = [RunFolder(Path(folder)) for folder in request.folders]
        with folders[0].engine_log.open("wb") as log:
            os.dup2(log.fileno(), 2)
        device = _use(request)
        try:
            if request.task == "train":
                _train_all(folders, device, emit, packed=request.packed)
            else:
                emit(event="start", versions=_versions(device))
                _TASKS[request.task](folders[0], device, emit)
        except (PruneError, RuntimeError) as error:
            sys.exit(_in_one_line(error))
        # A solver's parts refer to each other, and Python counts objects, not what tensors hold.
        gc.collect()
        loop.stop_asked.clear()
        emit(event="last" if _broken else "end")


def _parent() -> int:
    """The process that started this one, as it told: it may have been killed since."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid()


def _end_with_parent(parent: int) -> None:
    """Never outlive the engine: its run's folder may be another process's by now.

    Not by PR_SET_PDEATHSIG, which tells of the thread that started this process.
    """
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def prepare_process(threads: int = 1, *, tf32: bool = False) -> None:
    """Set what a process that trains runs best with, and what holds for all of it.

    Args:
        threads: Of a run, on the CPU.
        tf32: Whether a GPU may round factors to TF32. PyTorch itself lets convolutions do so.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        # Blobs are freed and made anew in every iteration: keep their pages instead of asking the
        # kernel for zeroed ones each time.
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, _KEEP_BYTES)


def _emitter() -> Emit:
    """Keep standard output for JSON lines: what libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lock = threading.Lock()

    def emit(**event: object) -> None:
        with lock:
            out.write(json.dumps(event) + "\n")
            out.flush()

    return emit


def _use(request: Request) -> torch.device:
    """Set what holds for the whole process: threads, precision, the device."""
    prepare_process(request.threads, tf32=request.tf32)
    device = torch.device(request.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            sys.exit(
                f"device {request.device}: PyTorch {torch.__version__} sees no CUDA device; "
                "`caffe-prune doctor` tells why, or use --device cpu"
            )
        torch.cuda.set_device(device)
    return device


def _versions(device: torch.device) -> dict[str, str]:
    versions = {
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
    }
    if device.type == "cuda":
        versions["cuda"] = f"{torch.version.cuda} on {torch.cuda.get_device_name(device)}"
    return versions


def _train_all(
    folders: Sequence[RunFolder], device: torch.device, emit: Emit, *, packed: bool
) -> None:
    """Train runs side by side; those that can be packed step together."""
    runs = []
    for number, folder in enumerate(folders):
        tell = partial(emit, run=number)
        with _telling_failure(tell):
            runs.append(_Run(folder, device, tell))
    if len(runs) == 1 and not (packed and can_be_stacked(runs[0].solver)):
        with _telling_failure(runs[0].emit):
            runs[0].lead_alone()
        return
    packs: dict[str, list[Solver]] = {}
    for run in runs:
        if key := pack_key(run.solver):
            packs.setdefault(key, []).append(run.solver)
    meetings = [Rendezvous(members) for members in packs.values()]
    with ThreadPoolExecutor(max(len(runs), 1)) as threads:
        led = []
        for run in runs:
            meeting = next((one for one in meetings if one.is_for(run.solver)), None)
            led.append(threads.submit(_lead_in_pack, run, meeting))
    for ended in led:
        ended.result()  # what is no failure of a run is one of the worker


def _lead_in_pack(run: "_Run", meeting: Rendezvous | None) -> None:
    with _telling_failure(run.emit):
        if meeting is None:
            run.lead_alone()
        else:
            with meeting.of(run.solver) as step:
                run.lead(step)


@contextmanager
def _telling_failure(emit: Emit) -> Iterator[None]:
    """Say what went wrong with one run; the others go on."""
    try:
        yield
    except (PruneError, OSError, RuntimeError, SystemExit) as error:
        if isinstance(error, RuntimeError):
            _broken.append(error)
        emit(event="failed", message=_in_one_line(error))


def _in_one_line(error: BaseException) -> str:
    """What went wrong, whole: CUDA's messages begin with it and end with general advice."""
    return " ".join(f"{error}".split())


class _Run:
    """One training run: what `engines.caffe.caffe_worker.loop.run` leads."""

    def __init__(self, folder: RunFolder, device: torch.device, emit: Emit) -> None:
        self.emit, self._folder = emit, folder
        emit(event="start", versions=_versions(device))
        self._job = json.loads(folder.job.read_bytes())
        self.solver = Solver(read_solver(folder.solver), _net_of(folder), device)
        self.net, self.test_nets = self.solver.net, self.solver.test_nets
        with ExitStack() as opened:
            opened.callback(self.solver.close)
            self._begin()
            opened.pop_all()  # from here on `lead` closes it

    def _begin(self) -> None:
        """Load what the run begins with: weights and masks, or its last snapshot."""
        job, snapshots = self._job, self._folder.snapshots
        for path in job["weights"]:
            self.net.copy_from(Path(path))
        if job["distillation"]:
            told = Distillation.model_validate(job["distillation"])
            self.solver.learn_from(read_net(self._folder.teacher), told)
        masks = _read_masks(self._folder, job["masked"])
        if job["masking"]:
            self.solver.follow(_MASKING.validate_python(job["masking"]), masks)
            masks = {}
        if job["tying"]:
            self.solver.tie(Tying.model_validate(job["tying"]), masks)
            masks = {}
        snapshots.mkdir(exist_ok=True)
        found = [n for n in snapshots_in(snapshots) if n <= job["max_iter"]]
        if found:
            snapshot = self._folder.state_at(found[-1])
            self.solver.restore(snapshot)
            # Before the solver is masked: it would hide what is wrong with the snapshot.
            if revived := Masks(self.net, masks).revived():
                raise EngineError(
                    f"{snapshot}: {revived} masked weights are not zero; it is damaged, remove it"
                )
            self.emit(event="resumed", iteration=self.solver.iter)
        if masks:
            self.solver.mask(masks)

    def lead_alone(self) -> None:
        """Train to the end, masked layers computed in the way that is fastest here."""
        if self.solver.masks:
            self.solver.compute_by(self._products())
        self.lead(self.solver.step)

    def _products(self) -> Sequence[Product]:
        """How masked layers are computed: as the run began, to whose bits it has to go on."""
        path = self._folder.products
        if path.is_file():
            return read_products(path)
        if self.solver.iter > 0 and not self._job["restored"]:
            return ()  # densely: as those did who wrote no such file
        found = self.solver.measured_products()
        if found:
            write_products(path, found)
        for product in found:
            self.emit(event="products", message=product.told)
        return found

    def lead(self, step: Callable[[int], None]) -> None:
        """Train to the end; ``step`` runs so many iterations of `solver`."""
        self.step = step
        job = self._job
        with closing(self.solver):
            testers = self._testers()
            iteration = loop.run(self, testers, job, self.solver.iter, self.emit, self._snapshot)
            if iteration < job["max_iter"]:
                self.emit(event="stopped", iteration=iteration)
            else:
                self.net.save(self._folder.final_weights)
                self.emit(event="done", iteration=iteration, revived=self.solver.revived())

    def _testers(self) -> list[Tester | MeansTester | None]:
        """What tests each test net; the nets are where the tests so far left them."""
        testers = []
        for net, told in zip(self.test_nets, self._job["tests"], strict=True):
            if told["plan"] is None:
                net.seek(loop.forwards_of_tests(self._job, told, self.solver.iter))
            testers.append(make_tester(net, told))
        return testers

    def _snapshot(self, iteration: int) -> None:
        self.solver.snapshot(self._folder.snapshots / (SNAPSHOT % iteration))
        write_sums(self._folder.snapshots, iteration)
        if not self._job["keep_snapshots"]:
            drop_snapshots(self._folder.snapshots, iteration)


def _net_of(folder: RunFolder) -> NetParameter:
    return anchored_output(read_net(folder.net), folder.path)


def _read_masks(
    folder: RunFolder, masked: Sequence[tuple[str, int]]
) -> dict[BlobKey, NDArray[np.bool_]]:
    if not masked:
        return {}
    with np.load(folder.mask_arrays, allow_pickle=False) as file:
        return {(layer, index): file[f"m{n}"] for n, (layer, index) in enumerate(masked)}


def _evaluate(folder: RunFolder, device: torch.device, emit: Emit) -> None:
    job = json.loads(folder.job.read_bytes())
    definition = _net_of(folder)
    net = Net(definition, NetState.of(definition, TEST), device)
    for path in job["weights"]:
        net.seek(0)
        net.copy_from(Path(path))
        emit(event="test", iteration=0, **Tester(net, job["test"], job["test_images"]).run())
        if loop.stop_asked:
            emit(event="stopped", iteration=0)
            break
    net.close()


def _forward(folder: RunFolder, device: torch.device, emit: Emit) -> None:  # noqa: ARG001
    job = ForwardJob.model_validate_json(folder.job.read_bytes())
    with np.load(folder.path / "inputs.npz", allow_pickle=False) as file:
        inputs = {name: file[f"i{place}"] for place, name in enumerate(job.inputs)}
    shapes = {name: array.shape for name, array in inputs.items()}
    net = Net(inference_net(_net_of(folder), shapes, job.outputs), NetState(TEST), device)
    net.copy_from(Path(job.weights))
    net.fetch()
    for name, array in inputs.items():
        net.value(name).copy_(torch.from_numpy(array))
    net.forward()
    found = {f"o{place}": net.blobs[name].data for place, name in enumerate(job.outputs)}
    np.savez(folder.path / "outputs.npz", allow_pickle=False, **found)


def _curvature(folder: RunFolder, device: torch.device, emit: Emit) -> None:  # noqa: ARG001
    job = CurvatureJob.model_validate_json(folder.job.read_bytes())
    net = Net(curvature_net(_net_of(folder)), NetState(TRAIN), device)
    with closing(net):
        net.copy_from(Path(job.weights))
        require_reached(net, job.blobs)
        measure = hessian_diagonal if job.kind == "hessian" else fisher_diagonal
        found = measure(net, job.batches)
        blobs = [found[net.owner(key)].cpu().numpy() for key in job.blobs]
    arrays = {f"c{place}": blob for place, blob in enumerate(blobs)}
    np.savez(folder.path / "curvature.npz", allow_pickle=False, **arrays)


_TASKS: dict[str, Callable[[RunFolder, torch.device, Emit], None]] = {
    "curvature": _curvature,
    "evaluate": _evaluate,
    "forward": _forward,
}


if __name__ == "__main__":
    main()
