"""Points of earlier results: by which keys they are found again."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pycaffe_prune.experiments.known import known_points, points_of_the_best
from pycaffe_prune.experiments.machine import this_machine
from pycaffe_prune.experiments.plan import Plan, make_plan, solver_path
from pycaffe_prune.experiments.reproduce import BASELINE
from pycaffe_prune.experiments.result import (
    DataSet,
    ExperimentResult,
    LayerRate,
    Point,
    Round,
    Score,
    Setting,
)
from pycaffe_prune.experiments.spec import ExperimentSpec, read_experiment
from pycaffe_prune.experiments.stages import Stage


@pytest.fixture
def spec(toml: Path) -> ExperimentSpec:
    return read_experiment(toml)


@pytest.fixture
def plan_of(toml: Path, tmp_path: Path, data_set: DataSet) -> Callable[[ExperimentSpec], Plan]:
    return lambda spec: make_plan(
        spec, solver_path(spec, toml), tmp_path, tmp_path, data_set, "torch"
    )


def _with_baseline(spec: ExperimentSpec, **changed: object) -> ExperimentSpec:
    return spec.model_copy(update={"baseline": spec.baseline.model_copy(update=changed)})


def _result(plan: Plan, spec: ExperimentSpec, data_set: DataSet, best: int) -> ExperimentResult:
    """What a run of the plan would write, where the initial training of seed ``best`` is it."""
    layers = tuple(
        LayerRate(layer=name, weights=1, kept=1, reduction=0)
        for name in plan.baselines[0].context.layers
    )
    score = Score(accuracy=1, correct=1, images=1, loss=0, finite=True)
    part = {"layers": layers, "reduction": 0, "before": score, "after": score}

    def point(method: str, stages: tuple[Stage, ...], seed: int, *, selected: bool) -> Point:
        rounds = tuple(
            Round(round=number, iterations=1, seconds=0, **part)
            for number in range(1, len(stages) + 1)
        )
        setting, key = Setting(name="s"), stages[-1].key
        return Point(
            method=method, setting=setting, seed=seed, rounds=rounds, selected=selected, key=key
        )

    return ExperimentResult(
        experiment=spec.name,
        preset="earlier",
        title=spec.title,
        finished="2026-11-30T00:00:00+00:00",
        engine="torch",
        versions={},
        machine=this_machine(),
        jobs=1,
        wall_seconds=1,
        data=data_set,
        settings=spec.model_dump(mode="json"),
        methods=(BASELINE, *(method.record for method in plan.methods)),
        points=(
            *(
                point(BASELINE.name, (stage,), stage.seed, selected=stage.seed == best)
                for stage in plan.baselines
            ),
            *(
                point(method.called, chain.stages, best, selected=True)
                for method in plan.methods
                for chain in plan.chains(method.called)
            ),
        ),
    )


def test_points_are_found_by_key_and_say_whose_they_were(spec, plan_of, data_set):
    plan = plan_of(spec)
    result = _result(plan, spec, data_set, best=1)
    known = known_points([result])
    assert set(known) == {point.key for point in result.points}
    assert {point.taken_from for point in known.values()} == {"earlier"}
    # Whose a point was at first stays told; of equal ones the first counts.
    later = result.model_copy(update={"preset": "later", "points": tuple(known.values())})
    assert known_points([later]) == known_points([later, result]) == known
    bare = [point.model_copy(update={"key": None}) for point in result.points]
    assert known_points([result.model_copy(update={"points": tuple(bare)})]) == {}


@pytest.mark.parametrize("best", [1, 2])
def test_what_the_best_led_to_is_known_where_each_is_pruned(spec, plan_of, data_set, best):
    result = _result(plan_of(spec), spec, data_set, best)
    found = points_of_the_best(result, spec, plan_of)
    each = plan_of(_with_baseline(spec, prune="each"))
    benches = [bench for bench in each.benches if bench.baselines[0].seed == best]
    mine = {
        chain.stages[-1].key
        for bench in benches
        for chains in bench.planned.values()
        for chain in chains
    }
    assert set(found) == mine
    other = {chain.stages[-1].key for chain in each.all_chains} - mine
    assert other, "the other initial training's points are still to be trained"
    pruned = [point for point in result.points if point.method != BASELINE.name]
    assert list(found.values()) == [
        point.model_copy(update={"key": key, "taken_from": "earlier"})
        for key, point in zip(found, pruned, strict=True)
    ]


def test_no_point_is_of_the_best_alone_where_that_cannot_be_told(spec, toml, plan_of, data_set):
    result = _result(plan_of(spec), spec, data_set, best=1)

    def found(**changed: object) -> Mapping[str, Point]:
        return points_of_the_best(result.model_copy(update=changed), spec, plan_of)

    assert found()
    each = _with_baseline(spec, prune="each")
    assert found(settings=each.model_dump(mode="json")) == {}
    assert found(settings={**result.settings, "of_another_version": 1}) == {}
    unselected = [point.model_copy(update={"selected": False}) for point in result.points]
    assert found(points=tuple(unselected)) == {}
    # No file is opened that only the result names: it may be a stranger's.
    named = str(toml.parent / "solver.prototxt")
    assert found(settings={**result.settings, "solver": named}) == {}
    assert found(settings={**result.settings, "retraining_solver": named}) == {}
    # A result with other settings than its stages had: only small models, which hang on no initial
    # training, have the keys that these settings give.
    longer = _with_baseline(spec, iterations=spec.baseline.iterations + 1)
    left = found(settings=longer.model_dump(mode="json"))
    assert {point.method for point in left.values()} == {"small"}
