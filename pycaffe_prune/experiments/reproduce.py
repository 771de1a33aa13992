"""The result of a whole experiment, put together from what its stages found."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pycaffe_prune import __version__
from pycaffe_prune.engines.base import TestScore
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.baselines import best
from pycaffe_prune.experiments.machine import this_machine
from pycaffe_prune.experiments.plan import Plan
from pycaffe_prune.experiments.pretraining import Pretraining
from pycaffe_prune.experiments.result import (
    DataSet,
    Execution,
    ExperimentResult,
    LayerRate,
    MethodRecord,
    Point,
    Prediction,
    PretrainingRecord,
    Round,
    Score,
    Setting,
    read_result,
)
from pycaffe_prune.experiments.spec import ExperimentSpec
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.methods.base import Chain

__all__ = ["BASELINE", "as_told_before", "assemble", "foresee"]


BASELINE = MethodRecord(
    name="baseline",
    kind="baseline",
    title="baseline",
    setting="seed",
    source="initial training, nothing pruned",
)
"""What points of the initial training are of."""


def foresee(plan: Plan) -> Prediction | None:
    """Return what the first method that can foresees from the unpruned network that is pruned.

    Returns:
        None when no method can, or the network's file is not there any more.

    Raises:
        FormatError: A file is damaged.
        SurgeryError: The weights are not finite.
    """
    bench = plan.benches[0]
    weights = best(bench.baselines).folder.training.final_weights
    if not weights.is_file():
        return None
    told = (method.foresee(bench, weights) for method in plan.methods)
    return next((prediction for prediction in told if prediction is not None), None)


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

    def point(
        method: str, stages: Sequence[Stage], setting: Setting, *, selected: bool = True
    ) -> Point:
        found = [outputs[stage.key] for stage in stages]
        return Point(
            method=method,
            setting=setting,
            units=found[-1].units,
            sizes=found[-1].sizes,
            seed=found[0].seed,
            rounds=tuple(_round(number, out, total) for number, out in enumerate(found, 1)),
            selected=selected,
            key=stages[-1].key,
        )

    each = len(plan.benches) > 1
    bare = Setting(name=BASELINE.setting)
    points = [
        point(BASELINE.name, [stage], bare, selected=each or stage is chosen)
        for stage in plan.baselines
    ]
    known = {chain.stages[-1].key: plan.found(chain) for chain in plan.all_chains}
    right = {key: output.after.correct for key, output in outputs.items()}
    right |= {key: one.rounds[-1].after.correct for key, one in known.items() if one}
    for method in plan.methods:
        chains = plan.chains(method.called)
        winners = {} if each else _winners(chains, right)
        for chain in chains:
            last = chain.stages[-1].key
            selected = winners.get(chain.rivals, chain) is chain
            earlier = known[last]
            units = outputs[last].units if earlier is None else earlier.units
            setting = method.tell(chain.value, units).noted(chain.note)
            if earlier is None:
                points.append(point(method.called, chain.stages, setting, selected=selected))
            else:
                told = {"method": method.called, "setting": setting, "selected": selected}
                points.append(earlier.model_copy(update=told))
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
        pretraining=tuple(_record(stage, outputs[stage.key]) for stage in plan.pretrainings),
        methods=(BASELINE, *(method.record for method in plan.methods)),
        points=tuple(points),
        prediction=foresee(plan),
    )


def _winners(chains: Sequence[Chain], right: Mapping[str, int]) -> Mapping[str, Chain]:
    """Of each group of rivals the one with the most right answers; of equal ones the first."""
    found: dict[str, Chain] = {}
    for chain in chains:
        other = found.get(chain.rivals)
        right_here = right[chain.stages[-1].key]
        if chain.rivals and (other is None or right_here > right[other.stages[-1].key]):
            found[chain.rivals] = chain
    return found


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
        fields = {name: getattr(told, name) for name in kept}
        return result.model_copy(update={**fields, "points": _with_speeds(result, told)})
    return result


def _with_speeds(result: ExperimentResult, told: ExperimentResult) -> tuple[Point, ...]:
    """The points, with what was measured of the same ones before."""
    measured = {(p.method, p.setting, p.seed): p.speed for p in told.points if p.speed is not None}
    return tuple(
        point.model_copy(update={"speed": measured.get((point.method, point.setting, point.seed))})
        for point in result.points
    )


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
        images=output.images,
        seconds=output.seconds,
    )


def _record(stage: Pretraining, output: StageOutput) -> PretrainingRecord:
    return PretrainingRecord(
        seed=stage.seed,
        data=stage.data_set,
        iterations=output.iterations,
        after=_score(output.after),
        seconds=output.seconds,
    )


def _score(test: TestScore) -> Score:
    return Score.model_validate(test.model_dump(include=set(Score.model_fields)))
