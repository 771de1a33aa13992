"""What the stages of a training share: made from a solver, its net and its data."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.engines.run_state import ChecksumOf
from pycaffe_prune.engines.solver_nets import net_of_solver
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.data_keys import mean_images, other_data
from pycaffe_prune.experiments.headline import require_headline
from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.pretraining import Pretraining, PretrainingFiles
from pycaffe_prune.experiments.result import DataSet, Execution
from pycaffe_prune.experiments.spec import ExperimentSpec
from pycaffe_prune.experiments.stages import Context
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.widths import with_widths

__all__ = ["make_context", "make_pretrainings"]


def make_context(
    folder: Path,
    solver: Path,
    data: Path,
    data_set: DataSet,
    engine_name: str,
    execution: Execution,
    *,
    units: Mapping[str, int],
    layers: tuple[str, ...] | None,
    accuracy: str | None,
    retraining_solver: Path | None,
    checksum_of: ChecksumOf,
) -> Context:
    """Return the context of stages, with the fingerprint of all that they hang on.

    Args:
        folder: Where the stages are stored.
        solver: The solver prototxt; it names the net.
        data: The folder that holds the LMDBs.
        data_set: What they hold.
        engine_name: What will train.
        execution: How it is told to work.
        units: Layers whose number of units is another one than in the net's file.
        layers: The fully connected layers that count; None: all that the net has.
        accuracy: The layer that is judged; None: chosen by `engines.test_plan`.
        retraining_solver: The one for what is trained after pruning; None: the same one.
        checksum_of: Says what the files of stages that are done hold.

    Raises:
        FormatError: A solver or its net cannot be read, a layer is not in the net, or there is
            nothing to judge by.
    """
    flags = {"tf32": execution.tf32, "trusted": execution.trusted}
    trainer = [engine_name, *(name for name, is_set in flags.items() if is_set)]
    net_path = net_of_solver(solver)
    net = with_widths(read_net(net_path), units)
    there = [layer.name for layer in net.layer if layer.type == "InnerProduct"]
    if missing := [name for name in layers or () if name not in there]:
        raise FormatError(
            f"{net_path}: has no InnerProduct layer '{missing[0]}'; there are: {', '.join(there)}"
        )
    headline = require_headline(solver, net_path, accuracy, trust=execution.trusted)
    own = _own_folders(net_path, solver, retraining_solver)

    readable = Readable.of(net_path, data, own, trust=execution.trusted)
    parts = [
        *(sha256_of(net_path), data_set.train_sha256, data_set.test_sha256, *trainer),
        *mean_images(net, DataFolder(data, readable)),
        *(f"{name}={count}" for name, count in sorted(units.items())),
        *other_data(net, DataFolder(data, readable), data_set),
        *filter(None, [headline.mark]),
    ]
    context = Context(
        folder=ExperimentFolder(folder),
        solver=solver,
        net=net_path,
        data=data,
        layers=tuple(there) if layers is None else layers,
        fingerprint=_fingerprint(solver, parts),
        device=execution.device,
        threads=execution.threads,
        units=tuple(sorted(units.items())),
        accuracy=accuracy,
        trust=execution.trusted,
        checksum_of=checksum_of,
        own=own,
    )
    if retraining_solver is None:
        return context
    again = require_headline(retraining_solver, net_path, accuracy, trust=execution.trusted)
    if again.layer != headline.layer:
        raise FormatError(
            f"{retraining_solver}: its test would be judged in '{again.layer}', and that of "
            f"{solver} in '{headline.layer}'; choose one with --accuracy"
        )
    return replace(
        context,
        retraining_solver=retraining_solver,
        retraining_fingerprint=_fingerprint(retraining_solver, parts),
    )


def make_pretrainings(
    spec: ExperimentSpec,
    folder: Path,
    files: PretrainingFiles | None,
    engine_name: str,
    execution: Execution,
    checksum_of: ChecksumOf,
) -> Mapping[int, Pretraining]:
    """Return the training on other data that the initial training of each seed begins with.

    Returns:
        None of them, where the experiment has no pre-training.

    Raises:
        FormatError: As `make_context`; or it has one, and its files are not told.
    """
    if spec.pretraining is None:
        return {}
    if files is None:
        raise FormatError(f"experiment '{spec.name}': solver and data of [pretraining] are needed")
    context = make_context(
        folder,
        files.solver,
        files.data,
        files.data_set,
        engine_name,
        execution,
        units=spec.pretraining.net.units,
        layers=None,
        accuracy=None,
        retraining_solver=None,
        checksum_of=checksum_of,
    )
    return {
        seed: Pretraining(context, spec.pretraining.iterations, seed, files.data_set)
        for seed in spec.baseline.seeds
    }


def _fingerprint(solver: Path, parts: Sequence[str]) -> str:
    return hashlib.sha256(" ".join([sha256_of(solver), *parts]).encode()).hexdigest()


def _own_folders(*files: Path | None) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(file.resolve().parent for file in files if file is not None))
