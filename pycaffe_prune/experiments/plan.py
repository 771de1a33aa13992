"""The stages of a whole experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pycaffe_prune.engines.contents import noted_sha256
from pycaffe_prune.engines.run_state import ChecksumOf
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.baselines import Baseline
from pycaffe_prune.experiments.contexts import make_context, make_pretrainings
from pycaffe_prune.experiments.pretrained import Pretrained
from pycaffe_prune.experiments.pretraining import Pretraining, PretrainingFiles
from pycaffe_prune.experiments.result import DataSet, Execution, Point
from pycaffe_prune.experiments.spec import ExperimentSpec
from pycaffe_prune.experiments.stages import Stage
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.share import share_root

__all__ = [
    "Plan",
    "final_stages",
    "make_plan",
    "pretraining_solver_path",
    "require_engine",
    "retraining_solver_path",
    "solver_path",
]


@dataclass(frozen=True)
class Plan:
    """The stages of an experiment."""

    baselines: tuple[Baseline, ...]
    """Initial trainings."""
    benches: tuple[Bench, ...]
    """One for all of them, of which the best is pruned, or one for each, which all are."""
    methods: tuple[Method, ...]
    known: Mapping[str, Point] = field(default_factory=dict)
    """Points of earlier results, by the key of their last stage: what they have is not run."""

    @property
    def stages(self) -> list[Stage]:
        """All stages to be run, each after its inputs, in the order in which they had best be."""
        stages = [
            *self.pretrainings,
            *self.baselines,
            *(
                stage
                for chain in self.all_chains
                if self.found(chain) is None
                for stage in chain.stages
            ),
        ]
        found: dict[str, Stage] = {}
        for stage in stages:
            _add_with_inputs(stage, found)
        return list(found.values())

    @property
    def all_chains(self) -> list[Chain]:
        """The chains of all methods, each method's as `chains` gives them."""
        return [chain for method in self.methods for chain in self.chains(method.called)]

    @property
    def taken(self) -> list[Point]:
        """The points that are taken from earlier results."""
        return [point for chain in self.all_chains if (point := self.found(chain)) is not None]

    def found(self, chain: Chain) -> Point | None:
        """Return the point of an earlier result that went through the same stages, if any."""
        point = self.known.get(chain.stages[-1].key)
        if point is None or len(point.rounds) != len(chain.stages):
            return None
        counted = tuple(row.layer for row in point.rounds[-1].layers)
        return point if counted == chain.stages[-1].context.layers else None

    @property
    def pretrainings(self) -> tuple[Pretraining, ...]:
        """The trainings on other data that the initial trainings begin with, if any."""
        return tuple(one.pretraining for one in self.baselines if one.pretraining is not None)

    def chains(self, method: str) -> tuple[Chain, ...]:
        """Return the chains of the method that is called so; none where there is no such method.

        What does not depend on the initial training is in it once.
        """
        found = (chain for bench in self.benches for chain in bench.planned.get(method, ()))
        return tuple({chain.stages[-1].key: chain for chain in found}.values())


def _add_with_inputs(stage: Stage, found: dict[str, Stage]) -> None:
    if stage.key not in found:
        for before in stage.inputs:
            _add_with_inputs(before, found)
        found[stage.key] = stage


def solver_path(spec: ExperimentSpec, toml: Path) -> Path:
    """Return the experiment's solver: beside the TOML file, else among the toolkit's files.

    Raises:
        FormatError: It is in neither place.
    """
    return _solver(spec.solver, toml)


def retraining_solver_path(spec: ExperimentSpec, toml: Path) -> Path | None:
    """Return the solver for what is trained after pruning, as `solver_path`; None: the same one."""
    return None if spec.retraining_solver is None else _solver(spec.retraining_solver, toml)


def pretraining_solver_path(spec: ExperimentSpec, toml: Path) -> Path | None:
    """Return the solver of the pre-training, as `solver_path`; None: there is no pre-training."""
    return None if spec.pretraining is None else _solver(spec.pretraining.solver, toml)


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
    pretraining: PretrainingFiles | None = None,
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
        pretraining: What the experiment's pre-training is made of, where it has one.
        checksum_of: Says what the files of stages that are done hold.

    Raises:
        FormatError: A solver or its net cannot be read, a layer is not in the net, there is
            nothing to judge by, or the experiment would begin with two kinds of weights.
    """
    execution = execution or Execution()
    if pretrained is not None and spec.pretraining is not None:
        raise FormatError(
            f"experiment '{spec.name}', preset '{spec.preset}': has a [pretraining] of its own; "
            f"leave it out to begin with {pretrained.path}"
        )
    context = make_context(
        folder,
        solver,
        data,
        data_set,
        engine_name,
        execution,
        units=spec.net.units,
        layers=spec.layers,
        accuracy=spec.accuracy,
        retraining_solver=retraining_solver,
        checksum_of=checksum_of,
    )
    before = make_pretrainings(spec, folder, pretraining, engine_name, execution, checksum_of)
    baselines = tuple(
        Baseline(context, spec.baseline.iterations, seed, pretrained, before.get(seed))
        for seed in spec.baseline.seeds
    )
    require_engine(spec.methods, engine_name)
    each = spec.baseline.prune == "each"
    groups = [(one,) for one in baselines] if each else [baselines]
    net = context.read_net()
    benches = tuple(_with_chains(spec.methods, Bench(context, group, net)) for group in groups)
    return Plan(baselines, benches, spec.methods)


def _with_chains(methods: Sequence[Method], bench: Bench) -> Bench:
    for method in methods:
        chains = {**bench.planned, method.called: tuple(method.chains(bench))}
        bench = replace(bench, planned=chains)
    return bench


def require_engine(methods: Sequence[Method], engine_name: str) -> None:
    """Refuse methods that an engine cannot do.

    Raises:
        FormatError: There is one.
    """
    for method in methods:
        if engine_name not in method.engines:
            able = " or ".join(f"--engine {name}" for name in sorted(method.engines))
            raise FormatError(
                f"the method '{method.called}' cannot be done by the engine {engine_name}; "
                f"use {able}"
            )


def final_stages(plan: Plan) -> list[Stage]:
    """Return the last stage of each point, in the order of `assemble`'s points."""
    return [*plan.baselines, *(chain.stages[-1] for chain in plan.all_chains)]
