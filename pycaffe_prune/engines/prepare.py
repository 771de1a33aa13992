"""From a request to a run folder that an engine can work in: checked, resolved, fingerprinted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pycaffe_prune.engines.backward_stops import refuse_stopped_backward
from pycaffe_prune.engines.data_faults import refuse_faulty_data
from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.data_shapes import data_shapes
from pycaffe_prune.engines.differences import run_differences
from pycaffe_prune.engines.distillation import (
    TeacherWish,
    distilled_losses,
    plan_distillation,
)
from pycaffe_prune.engines.fingerprint import net_fingerprint, solver_fingerprint
from pycaffe_prune.engines.initial_weights import (
    load_list,
    require_fitting_mask,
    require_use,
    weights_files,
)
from pycaffe_prune.engines.job import (
    EvaluationJob,
    Job,
    ReadFile,
    TrainRequest,
)
from pycaffe_prune.engines.kept_weights import require_masking, require_tying
from pycaffe_prune.engines.losses import weighted_losses
from pycaffe_prune.engines.net_data import (
    batch_size,
    refuse_unfed,
    replay_plan,
    resolve_databases,
    resolve_lists,
)
from pycaffe_prune.engines.net_files import NetFile, net_files
from pycaffe_prune.engines.net_tests import TestNet, headline_of, plan_tests
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.engines.resolved_solver import resolved_solver, solver_settings
from pycaffe_prune.engines.restoring import Restored, read_restored
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.solver_nets import solver_nets, test_states, with_nets
from pycaffe_prune.engines.test_images import image_count, why_uncounted
from pycaffe_prune.engines.test_plan import headline_mark, label_source, plan_test
from pycaffe_prune.engines.trusted_layers import confine_output, make_output_folders, module_folders
from pycaffe_prune.errors import DataError, FormatError, SurgeryError
from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.caffe_pb2 import (
    TEST,
    TRAIN,
    LayerParameter,
    NetParameter,
    Phase,
    SolverParameter,
)
from pycaffe_prune.formats.files import atomic_write, sha256_of, write_text
from pycaffe_prune.formats.mask import MaskFile, read_mask
from pycaffe_prune.formats.prototxt import (
    read_solver,
    refuse_carried,
    write_prototxt,
)
from pycaffe_prune.formats.weights import caffe_weights
from pycaffe_prune.net.fit import refuse_repeated_names
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.state_wish import OWN_STATE, StateWish, read_net_in_state
from pycaffe_prune.net.trust import refuse_untrusted

__all__ = [
    "CheckedRun",
    "check",
    "prepare",
    "prepare_evaluation",
    "resolved_net",
]


@dataclass(frozen=True)
class CheckedRun:
    """A run that may begin or go on in its folder."""

    job: Job
    net: NetParameter
    """With absolute paths to its data."""
    solver: SolverParameter
    """With all overrides in it."""
    mask: MaskFile | None
    restored: Restored | None
    teacher: NetParameter | None = None

    def write(self, folder: RunFolder) -> None:
        """Write net, solver, masks, the state to go on from and ``job.json`` into ``folder``."""
        make_output_folders(self.net, folder.path)
        write_prototxt(folder.net, self.net)
        write_prototxt(folder.solver, self.solver)
        if self.mask:
            arrays = {f"m{place}": array for place, array in enumerate(self.mask.masks.values())}
            with atomic_write(folder.mask_arrays) as temporary:
                np.savez_compressed(temporary, allow_pickle=False, **arrays)
        if self.teacher:
            write_prototxt(folder.teacher, self.teacher)
        if self.restored:
            self.restored.write(folder)
        write_text(folder.job, self.job.model_dump_json(indent=2) + "\n")


def prepare(request: TrainRequest, folder: RunFolder) -> Job:
    """Check a request, write net, solver, masks and ``job.json`` into ``folder``, return the job.

    Nothing is written when the request is at fault.

    Raises:
        PruneError: As `check`.
    """
    checked = check(request, folder)
    checked.write(folder)
    return checked.job


def check(request: TrainRequest, folder: RunFolder) -> CheckedRun:
    """Check a request, and that ``folder`` holds no other run; write nothing.

    Raises:
        FormatError: A file is missing or damaged, or the folder holds another run.
        DataError: An LMDB is missing or empty.
        SurgeryError: Net, weights and mask do not fit together.
    """
    solver = read_solver(request.solver)
    refuse_carried(solver, request.solver, "training")
    resolved = resolved_solver(solver, request)
    nets = solver_nets(request, resolved)
    net, files = resolved_net(nets.net, _data_folder(request, nets.source))
    _name_losses(net)
    mask = read_mask(request.mask) if request.mask else None
    refuse_repeated_names(net)
    resolved = with_nets(resolved, nets, folder.net)
    train = layers_in_state(net, NetState(TRAIN))
    refuse_unfed(train, nets.source)
    refuse_faulty_data(net, files, [NetState(TRAIN), *test_states(resolved)])
    inputs = _inputs(net, TRAIN)
    refuse_stopped_backward(train, inputs, nets.source, force=net.force_backward)
    restored = read_restored(request, net, resolved, mask)
    initial = () if restored else weights_files(request, solver)
    files_used = [Path(restored.told.weights)] if restored else initial
    loaded, new = load_list(net, files_used, inputs)
    if mask:
        require_fitting_mask(net, loaded, mask)
    require_masking(request, net, inputs, resolved, mask)
    require_tying(request, net, inputs, loaded)
    tests = [
        TestNet(name, layers_in_state(net, state), batches)
        for name, state, batches in zip(
            nets.tests, test_states(resolved), resolved.test_iter, strict=True
        )
    ]
    job = _job(request, solver, resolved, net, files, tests, mask).model_copy(
        update={
            "weights": tuple(map(str, initial)),
            "weights_sha256": tuple(file.sha256 for file in loaded[: len(initial)]),
            "loaded": loaded,
            "new_layers": new,
            "restored": restored.told if restored else None,
            "module_folders": module_folders(request.solver, nets.source) if request.trust else (),
        }
    )
    teacher = None
    if request.teacher:
        job, teacher = _taught(request.teacher, job, net, trust=request.trust)
    _refuse_other_run(folder, job, net, resolved)
    return CheckedRun(job, net, resolved, mask, restored, teacher)


def _taught(
    wish: TeacherWish, job: Job, net: NetParameter, *, trust: bool
) -> tuple[Job, NetParameter]:
    """The job with a teacher, and the teacher's net."""
    layers = layers_in_state(net, NetState(TRAIN))
    told, teacher = plan_distillation(wish, layers, data_shapes(layers), trust=trust)
    losses = tuple(distilled_losses(job.losses, told, layers))
    return job.model_copy(update={"distillation": told, "losses": losses}), teacher


def prepare_evaluation(
    net_path: Path,
    weights: Sequence[Path],
    data: Path | None,
    folder: RunFolder,
    images: int | None = None,
    *,
    device: str = "cpu",
    threads: int = 1,
    state: StateWish = OWN_STATE,
    accuracy: str | None = None,
    trust: bool = False,
) -> EvaluationJob:
    """Write what an engine needs to test caffemodels of one net into ``folder``.

    Args:
        net_path: The net, with a test to it (Accuracy or SoftmaxWithLoss).
        weights: The caffemodels; all hold the same blobs.
        data: Folder in which the net's relative LMDB and mean paths are looked up.
        folder: Where to prepare.
        images: Test on the first images only; None: on all.
        device: ``cpu`` or ``cuda[:N]``.
        threads: BLAS threads.
        state: In which level and stages the net is tested.
        accuracy: The layer that is judged; None: chosen by `engines.test_plan`.
        trust: Whether the net is the user's own, and may run code and write (`net.trust`).

    Raises:
        As `prepare`; FormatError too when the net has nothing to test, DataError when the test
        LMDB holds fewer images, SurgeryError when the caffemodels hold different blobs.
    """
    net = read_net_in_state(net_path, state)
    if not trust:
        refuse_untrusted(net, net_path)
    readable = Readable.of(net_path, data, trust=trust)
    net, files = resolved_net(net, DataFolder(data, readable))
    refuse_repeated_names(net)
    refuse_faulty_data(net, files, [NetState.of(net, TEST)])
    inputs = _inputs(net, TEST)
    for path in weights:
        require_use(path, caffe_weights(path), net, TEST, inputs)
    _require_same_blobs(weights)
    test = layers_in_state(net, NetState.of(net, TEST))
    plan = plan_test(test, accuracy, layers_in_state(net, NetState.of(net, TRAIN)))
    reason = why_uncounted(test, plan)
    if plan is None or reason:
        raise FormatError(f"{net_path}: {reason}")
    there = image_count(label_source(test, plan))
    wanted = there if images is None else images
    if wanted > there:
        raise DataError(f"{net_path}: its test data holds {there} images, fewer than {wanted}")
    job = EvaluationJob(
        net_sha256=net_fingerprint(net, files),
        weights=tuple(str(path.resolve()) for path in weights),
        test_images=wanted,
        rewind=wanted < there or there % plan.batch != 0 or _remembers(test),
        test=plan,
        headline_mark=headline_mark(test, plan),
        device=device,
        threads=threads,
        module_folders=module_folders(net_path) if trust else (),
    )
    make_output_folders(net, folder.path)
    write_prototxt(folder.net, net)
    write_text(folder.job, job.model_dump_json(indent=2) + "\n")
    return job


def _data_folder(request: TrainRequest, net_path: Path) -> DataFolder:
    own = (request.solver.resolve().parent, *request.own)
    return DataFolder(request.data, Readable.of(net_path, request.data, own, trust=request.trust))


def resolved_net(net: NetParameter, folder: DataFolder) -> tuple[NetParameter, list[NetFile]]:
    """Return the net with absolute paths, and what is in the files that it reads.

    Args:
        net: Is changed.
        folder: Where relative paths are looked up.

    Raises:
        FormatError, DataError: A file is missing, damaged, or where the net may have none read.
    """
    path = folder.readable.source
    refuse_carried(net, path, "an engine")
    resolve_databases(net, path, folder)
    resolve_lists(net, path, folder)
    confine_output(net, path)
    return net, net_files(net)


def _inputs(net: NetParameter, phase: Phase) -> dict[str, Shape]:
    return data_shapes(layers_in_state(net, NetState.of(net, phase)))


def _remembers(layers: Sequence[LayerParameter]) -> bool:
    """Whether a forward pass begins with the hidden states that the last one left."""
    return any(layer.type in ("LSTM", "RNN") for layer in layers)


def _require_same_blobs(weights: Sequence[Path]) -> None:
    """Refuse caffemodels of which one would leave the last one's blobs in the net."""
    found = {
        path: {key: blob.shape for key, blob in caffe_weights(path).blobs()} for path in weights
    }
    for path, shapes in found.items():
        first = found[weights[0]]
        if differing := sorted(set(shapes.items()) ^ set(first.items())):
            (name, index), _ = differing[0]
            raise SurgeryError(
                f"{path}: layer '{name}', blob {index} is not as in {weights[0]}; caffemodels that "
                "are tested together hold the same blobs"
            )


def _refuse_other_run(
    folder: RunFolder, job: Job, net: NetParameter, solver: SolverParameter
) -> None:
    if folder.job.is_file() and (differences := run_differences(folder, job, net, solver)):
        raise FormatError(
            f"{folder.path}: holds another run: {'; '.join(differences)}; choose another --out or "
            "remove it"
        )


def _job(
    request: TrainRequest,
    original: SolverParameter,
    solver: SolverParameter,
    net: NetParameter,
    files: Sequence[NetFile],
    tests: Sequence[TestNet],
    mask: MaskFile | None,
) -> Job:
    train = layers_in_state(net, NetState(TRAIN))
    planned = plan_tests(tests, train, request.accuracy)
    interval = original.test_interval if request.test_interval is None else request.test_interval
    return Job(
        net_sha256=net_fingerprint(net, files),
        files=tuple(map(_read_file, files)),
        solver_sha256=solver_fingerprint(solver),
        mask_sha256=sha256_of(request.mask) if request.mask else None,
        masked=tuple(mask.masks) if mask else (),
        masking=request.masking,
        tying=request.tying,
        seed=solver.random_seed,
        max_iter=solver.max_iter,
        iter_size=solver.iter_size,
        snapshot=original.snapshot if request.snapshot is None else request.snapshot,
        keep_snapshots=request.keep_snapshots,
        checkpoints=request.checkpoints,
        test_interval=interval,
        test_initialization=original.test_initialization or request.test_interval is not None,
        display=original.display or 100,
        batch=next((size for size in map(batch_size, train) if size), 0),
        tests=planned,
        headline=headline_of(planned, request.accuracy),
        losses=tuple(weighted_losses(train)),
        replay=tuple(replay_plan(train)),
        solver=solver_settings(solver),
        device=request.device,
        threads=request.threads,
        trusted=request.trust,
    )


def _read_file(file: NetFile) -> ReadFile:
    return ReadFile(
        reader=file.reader,
        field=f"{file.message}.{file.field}",
        told=file.told,
        sha256=file.content.sha256,
    )


def _name_losses(net: NetParameter) -> None:
    """Name the top that Caffe gives to a loss without one: pycaffe has all of them as one blob."""
    for layer in net.layer:
        if layer.type.endswith("Loss") and not layer.top:
            layer.top.append(f"(automatic) {layer.name}")
