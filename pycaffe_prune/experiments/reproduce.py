"""A whole experiment: its stages planned, run, and put together as a result."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pycaffe_prune import __version__
from pycaffe_prune.engines.base import TestScore
from pycaffe_prune.engines.contents import noted_sha256
from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.engines.run_state import ChecksumOf
from pycaffe_prune.engines.solver_nets import net_of_solver
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.data_keys import mean_images, other_data
from pycaffe_prune.experiments.headline import require_headline
from pycaffe_prune.experiments.machine import this_machine
from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.prediction import predict, shrink
from pycaffe_prune.experiments.pretrained import Pretrained
from pycaffe_prune.experiments.result import (
    DataSet,
    Execution,
    ExperimentResult,
    LayerRate,
    Method,
    Point,
    Prediction,
    Round,
    Score,
    read_result,
)
from pycaffe_prune.experiments.spec import ExperimentSpec
from pycaffe_prune.experiments.stage_kinds import Baseline, Connections, SmallModel, Units, best
from pycaffe_prune.experiments.stages import Context, Stage, StageOutput, with_units
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import read_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.pruning.connections import SigmaRule
from pycaffe_prune.pruning.criteria.units import units_to_delete
from pycaffe_prune.share import share_root

__all__ = [
    "Plan",
    "as_told_before",
    "assemble",
    "foresee",
    "make_plan",
    "retraining_solver_path",
    "solver_path",
]


@dataclass(frozen=True)
class Plan:
    """The stages of an experiment."""

    baselines: tuple[Baseline, ...]
    connections: tuple[tuple[Connections, ...], ...]
    """Per alpha, its rounds."""
    units: tuple[Units, ...]
    small: tuple[tuple[SmallModel, ...], ...]
    """Per shape, its seeds. Shares of units that round to one shape have it in common."""

    @property
    def stages(self) -> list[Stage]:
        """All stages, each after its inputs, in the order in which they had best be run."""
        rounds = [stage for chain in self.connections for stage in chain]
        seeds = [stage for shape in self.small for stage in shape]
        return [*self.baselines, *rounds, *self.units, *seeds]


def solver_path(spec: ExperimentSpec, toml: Path) -> Path:
    """Return the experiment's solver: beside the TOML file, else among the toolkit's files.

    Raises:
        FormatError: It is in neither place.
    """
    return _solver(spec.solver, toml)


def retraining_solver_path(spec: ExperimentSpec, toml: Path) -> Path | None:
    """Return the solver for what is trained after pruning, as `solver_path`; None: the same one."""
    return None if spec.retraining_solver is None else _solver(spec.retraining_solver, toml)


def _solver(name: str, toml: Path) -> Path:
    for folder in (toml.resolve().parent, share_root()):
        if (folder / name).is_file():
            return folder / name
    raise FormatError(f"{toml}: names the solver '{name}', which is nowhere to be found")


def make_plan(
    spec: ExperimentSpec,
    solver: Path,
    folder: Path,
    data: Path,
    data_set: DataSet,
    engine_name: str,
    execution: Execution | None = None,
    *,
    retraining_solver: Path | None = None,
    pretrained: Pretrained | None = None,
    checksum_of: ChecksumOf = noted_sha256,
) -> Plan:
    """Lay out every stage of the experiment; nothing is run or written.

    Args:
        spec: The experiment.
        solver: Its solver prototxt.
        folder: Where its stages are stored.
        data: The folder that holds the LMDBs.
        data_set: What they hold; part of every stage's key.
        engine_name: What will train; part of every stage's key.
        execution: How it is told to work; of this, TF32 and trust are part of the keys. None: the
            defaults.
        retraining_solver: The one for what is trained after pruning; None: the same one.
        pretrained: What the initial training begins with; None: random values.
        checksum_of: Says what the files of stages that are done hold.

    Raises:
        FormatError: A solver or its net cannot be read, a layer is not in the net, or there is
            nothing to judge by.
    """
    execution = execution or Execution()
    flags = {"tf32": execution.tf32, "trusted": execution.trusted}
    trainer = [engine_name, *(name for name, is_set in flags.items() if is_set)]
    net_path = net_of_solver(solver)
    net = with_units(read_net(net_path), spec.net.units)
    units = _units_of(net)
    if missing := [name for name in spec.layers if name not in units]:
        raise FormatError(
            f"{net_path}: has no InnerProduct layer '{missing[0]}'; there are: {', '.join(units)}"
        )
    headline = require_headline(solver, net_path, spec.accuracy, trust=execution.trusted)
    own = _own_folders(net_path, solver, retraining_solver)

    readable = Readable.of(net_path, data, own, trust=execution.trusted)
    parts = [
        *(sha256_of(net_path), data_set.train_sha256, data_set.test_sha256, *trainer),
        *mean_images(net, DataFolder(data, readable)),
        *(f"{name}={count}" for name, count in sorted(spec.net.units.items())),
        *other_data(net, DataFolder(data, readable), data_set),
        *filter(None, [headline.mark]),
    ]
    context = Context(
        folder=ExperimentFolder(folder),
        solver=solver,
        net=net_path,
        data=data,
        layers=spec.layers,
        fingerprint=_fingerprint(solver, parts),
        device=execution.device,
        threads=execution.threads,
        units=tuple(sorted(spec.net.units.items())),
        accuracy=spec.accuracy,
        trust=execution.trusted,
        checksum_of=checksum_of,
        own=own,
    )
    if retraining_solver is not None:
        after = _fingerprint(retraining_solver, parts)
        again = require_headline(
            retraining_solver, net_path, spec.accuracy, trust=execution.trusted
        )
        if again.layer != headline.layer:
            raise FormatError(
                f"{retraining_solver}: its test would be judged in '{again.layer}', and that of "
                f"{solver} in '{headline.layer}'; choose one with --accuracy"
            )
        context = replace(
            context, retraining_solver=retraining_solver, retraining_fingerprint=after
        )
    baselines = tuple(
        Baseline(context, spec.baseline.iterations, seed, pretrained)
        for seed in spec.baseline.seeds
    )
    ratios = [_ratios(spec, ratio) for ratio in spec.units.ratios]
    shapes = dict.fromkeys(_shape(units, ratio) for ratio in ratios)
    return Plan(
        baselines,
        tuple(_rounds(spec, context, baselines, alpha) for alpha in spec.connections.alphas),
        tuple(
            Units(context, spec.units.iterations, baselines, ratio, spec.units.criterion)
            for ratio in ratios
        ),
        tuple(_small(spec, context, shape) for shape in shapes) if spec.small else (),
    )


def _fingerprint(solver: Path, parts: Sequence[str]) -> str:
    return hashlib.sha256(" ".join([sha256_of(solver), *parts]).encode()).hexdigest()


def _own_folders(*files: Path | None) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(file.resolve().parent for file in files if file is not None))


def _small(
    spec: ExperimentSpec, context: Context, shape: tuple[tuple[str, int], ...]
) -> tuple[SmallModel, ...]:
    if spec.small is None:
        return ()
    return tuple(
        SmallModel(context, spec.small.iterations, shape, seed) for seed in spec.small.seeds
    )


def _rounds(
    spec: ExperimentSpec, context: Context, baselines: tuple[Baseline, ...], alpha: float
) -> tuple[Connections, ...]:
    chain: list[Connections] = []
    for _ in range(spec.connections.rounds):
        previous = chain[-1] if chain else None
        chain.append(
            Connections(
                context,
                spec.connections.iterations,
                baselines,
                previous,
                alpha,
                spec.connections.sigma,
            )
        )
    return tuple(chain)


def _ratios(spec: ExperimentSpec, ratio: float) -> tuple[tuple[str, float], ...]:
    ratios = {**dict.fromkeys(spec.units.varied, ratio), **spec.units.fixed}
    return tuple((name, ratios[name]) for name in spec.layers if name in ratios)


def _units_of(net: NetParameter) -> dict[str, int]:
    return {
        layer.name: layer.inner_product_param.num_output
        for layer in net.layer
        if layer.type == "InnerProduct"
    }


def _shape(
    units: Mapping[str, int], ratios: tuple[tuple[str, float], ...]
) -> tuple[tuple[str, int], ...]:
    """The units that pruning by ``ratios`` leaves (`criteria.units.units_to_keep`)."""
    return tuple(
        (name, units[name] - units_to_delete(units[name], share)) for name, share in ratios
    )


def foresee(spec: ExperimentSpec, plan: Plan) -> Prediction | None:
    """Return the rates foreseen from the unpruned network that is pruned; see `prediction`.

    Returns:
        None when there is nothing to foresee them from: sigma is not taken once from the unpruned
        network, the solver is of another kind, no connections are pruned, or the network's file is
        not there any more.

    Raises:
        FormatError: A file is damaged.
        SurgeryError: The weights are not finite.
    """
    weights = best(plan.baselines).folder.training.final_weights
    if (
        spec.connections.sigma is not SigmaRule.INITIAL
        or not plan.connections
        or not weights.is_file()
    ):
        return None
    context = plan.connections[0][0].context
    solver = read_solver(context.retraining_solver or context.solver)
    once = shrink(solver, spec.connections.iterations)
    if once is None:
        return None
    shrunk = once ** (spec.connections.rounds - 1)
    return predict(read_caffemodel(weights), spec.layers, spec.connections.alphas, shrunk)


def assemble(
    spec: ExperimentSpec,
    plan: Plan,
    data_set: DataSet,
    engine_name: str,
    jobs: int,
    execution: Execution | None = None,
) -> ExperimentResult:
    """Put the outputs of all stages together.

    Raises:
        FormatError: A stage is not done.
    """
    outputs = {stage.key: stage.require_output() for stage in plan.stages}
    total = outputs[plan.baselines[0].key].kept
    chosen, begun = best(plan.baselines), plan.baselines[0].pretrained

    def point(method: Method, stages: Sequence[Stage], *, selected: bool = True) -> Point:
        found = [outputs[stage.key] for stage in stages]
        return Point(
            method=method,
            alpha=stages[0].alpha if isinstance(stages[0], Connections) else None,
            units=found[0].units,
            seed=found[0].seed,
            rounds=tuple(_round(number, out, total) for number, out in enumerate(found, 1)),
            selected=selected,
        )

    points = [point("baseline", [stage], selected=stage is chosen) for stage in plan.baselines]
    points += [point("connections", chain) for chain in plan.connections]
    points += [point("units", [stage]) for stage in plan.units]
    for seeds in plan.small:
        winner = max(seeds, key=lambda stage: outputs[stage.key].after.correct)
        points += [point("small", [stage], selected=stage is winner) for stage in seeds]
    versions = {"pycaffe-prune": __version__, **next(iter(outputs.values())).versions}
    return ExperimentResult(
        experiment=spec.name,
        preset=spec.preset,
        title=spec.title,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        engine=engine_name,
        execution=execution or Execution(),
        versions=versions,
        machine=this_machine(),
        jobs=jobs,
        wall_seconds=sum(output.seconds for output in outputs.values()),
        data=data_set,
        settings=spec.model_dump(mode="json"),
        pretrained_sha256=begun.sha256 if begun else None,
        points=tuple(points),
        prediction=foresee(spec, plan),
    )


def as_told_before(result: ExperimentResult, *earlier: Path) -> ExperimentResult:
    """Return the result of stages that were all done before, with how and when that was.

    Args:
        result: Put together anew.
        earlier: Files of results of the same stages; the first that can be read counts. Where
            there is none, nothing is known but what this process is told and runs on.
    """
    for path in earlier:
        try:
            told = read_result(path)
        except FormatError:
            continue
        kept = ("finished", "execution", "versions", "machine", "jobs")
        return result.model_copy(update={name: getattr(told, name) for name in kept})
    return result


def _round(number: int, output: StageOutput, total: dict[str, int]) -> Round:
    layers = tuple(
        LayerRate(
            layer=name,
            weights=weights,
            kept=output.kept[name],
            reduction=1 - output.kept[name] / weights,
        )
        for name, weights in total.items()
    )
    return Round(
        round=number,
        layers=layers,
        reduction=1 - sum(row.kept for row in layers) / sum(row.weights for row in layers),
        before=_score(output.before),
        after=_score(output.after),
        iterations=output.iterations,
        seconds=output.seconds,
    )


def _score(test: TestScore) -> Score:
    return Score.model_validate(test.model_dump(include=set(Score.model_fields)))
