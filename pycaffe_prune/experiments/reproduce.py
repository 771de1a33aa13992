"""A whole experiment: its stages planned, run, and put together as a result."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pycaffe_prune import __version__
from pycaffe_prune.engines.base import TestScore
from pycaffe_prune.engines.prepare import net_of_solver
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.machine import this_machine
from pycaffe_prune.experiments.paths import ExperimentFolder
from pycaffe_prune.experiments.result import (
    DataSet,
    Execution,
    ExperimentResult,
    LayerRate,
    Method,
    Point,
    Round,
    Score,
)
from pycaffe_prune.experiments.spec import ExperimentSpec
from pycaffe_prune.experiments.stages import (
    Baseline,
    Connections,
    Context,
    SmallModel,
    Stage,
    StageOutput,
    Units,
    best,
)
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.pruning.criteria.units import units_to_delete
from pycaffe_prune.share import share_root

__all__ = ["Plan", "assemble", "make_plan", "solver_path"]


@dataclass(frozen=True)
class Plan:
    """The stages of an experiment."""

    baselines: tuple[Baseline, ...]
    connections: tuple[tuple[Connections, ...], ...]
    """Per alpha, its rounds."""
    units: tuple[Units, ...]
    small: tuple[tuple[SmallModel, ...], ...]
    """Per shape, its seeds."""

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
    for folder in (toml.resolve().parent, share_root()):
        if (folder / spec.solver).is_file():
            return folder / spec.solver
    raise FormatError(f"{toml}: names the solver '{spec.solver}', which is nowhere to be found")


def make_plan(
    spec: ExperimentSpec,
    solver: Path,
    folder: Path,
    data: Path,
    data_set: DataSet,
    engine_name: str,
    execution: Execution | None = None,
) -> Plan:
    """Lay out every stage of the experiment; nothing is run or written.

    Args:
        spec: The experiment.
        solver: Its solver prototxt.
        folder: Where its stages are stored.
        data: The folder that holds the LMDBs.
        data_set: What they hold; part of every stage's key.
        engine_name: What will train; part of every stage's key.
        execution: How it is told to work; of this, TF32 is part of the keys. None: the defaults.

    Raises:
        FormatError: The solver or its net cannot be read, or a layer is not in the net.
    """
    execution = execution or Execution()
    net_path = net_of_solver(solver)
    parts = [sha256_of(solver), sha256_of(net_path), data_set.train_sha256, data_set.test_sha256]
    trainer = [engine_name, "tf32"] if execution.tf32 else [engine_name]
    context = Context(
        folder=ExperimentFolder(folder),
        solver=solver,
        net=net_path,
        data=data,
        layers=spec.layers,
        fingerprint=hashlib.sha256(" ".join([*parts, *trainer]).encode()).hexdigest(),
        device=execution.device,
        threads=execution.threads,
    )
    baselines = tuple(
        Baseline(context, spec.baseline.iterations, seed) for seed in spec.baseline.seeds
    )
    ratios = [_ratios(spec, ratio) for ratio in spec.units.ratios]
    units = _units_of(net_path)
    return Plan(
        baselines,
        tuple(_rounds(spec, context, baselines, alpha) for alpha in spec.connections.alphas),
        tuple(
            Units(context, spec.units.iterations, baselines, ratio, spec.units.criterion)
            for ratio in ratios
        ),
        tuple(
            tuple(
                SmallModel(context, spec.small.iterations, _shape(units, ratio), seed)
                for seed in spec.small.seeds
            )
            for ratio in ratios
        ),
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
    ratios = {spec.units.layer: ratio, **spec.units.fixed}
    return tuple((name, ratios[name]) for name in spec.layers if name in ratios)


def _units_of(net_path: Path) -> dict[str, int]:
    return {
        layer.name: layer.inner_product_param.num_output
        for layer in read_net(net_path).layer
        if layer.type == "InnerProduct"
    }


def _shape(
    units: dict[str, int], ratios: tuple[tuple[str, float], ...]
) -> tuple[tuple[str, int], ...]:
    """The units that pruning by ``ratios`` leaves (`criteria.units.units_to_keep`)."""
    missing = [name for name, _ in ratios if name not in units]
    if missing:
        raise FormatError(f"the net has no InnerProduct layer '{missing[0]}'")
    return tuple(
        (name, units[name] - units_to_delete(units[name], share)) for name, share in ratios
    )


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
    outputs = {stage.key: _done(stage) for stage in plan.stages}
    total = outputs[plan.baselines[0].key].kept
    chosen = best(plan.baselines)

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
        points=tuple(points),
    )


def _done(stage: Stage) -> StageOutput:
    output = stage.output()
    if output is None:
        raise FormatError(f"stage {stage.label} is not done; run `caffe-prune reproduce` again")
    return output


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
    return Score.model_validate(test.model_dump(exclude={"iteration"}))
