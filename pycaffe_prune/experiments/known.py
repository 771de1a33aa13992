"""Points that earlier results have, by the key of their last stage."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from pydantic import ValidationError

from pycaffe_prune.experiments.plan import Plan
from pycaffe_prune.experiments.reproduce import BASELINE
from pycaffe_prune.experiments.result import ExperimentResult, Point
from pycaffe_prune.experiments.spec import ExperimentSpec

__all__ = ["known_points", "points_of_the_best"]


def known_points(results: Iterable[ExperimentResult]) -> Mapping[str, Point]:
    """Return the points of results by the key of their last stage; each says whose it was.

    Those that were written before keys were told are left out. Of equal ones the first counts.
    """
    found: dict[str, Point] = {}
    for result in results:
        for point in result.points:
            if point.key is not None and point.key not in found:
                whose = point.taken_from or result.preset
                found[point.key] = point.model_copy(update={"taken_from": whose})
    return found


def points_of_the_best(
    result: ExperimentResult, spec: ExperimentSpec, plan_of: Callable[[ExperimentSpec], Plan]
) -> Mapping[str, Point]:
    """Return a result's points by the keys that they have where the best was trained alone.

    Where the best of several initial trainings is pruned, all of them are in the keys of what
    follows, since which one it will be is not known before. Once it is, its stages are those of a
    plan in which each is pruned.

    Args:
        result: The points that it has from stages of such a plan stay as they are.
        spec: The experiment that they are wanted for. No solver is read that the result names and
            this does not: the result may be a stranger's.
        plan_of: Lays out an experiment on what is there now. Only points whose key comes out as the
            result has it are returned.

    Raises:
        PruneError: The result's experiment cannot be laid out on what is here.
    """
    try:
        earlier = ExperimentSpec.model_validate(result.settings)
    except ValidationError:  # of a version whose stages had other keys
        return {}
    best = [
        point.seed for point in result.points if point.method == BASELINE.name and point.selected
    ]
    others = {earlier.solver, earlier.retraining_solver} - {spec.solver, spec.retraining_solver}
    if earlier.baseline.prune != "best" or len(best) != 1 or others - {None}:
        return {}
    alone = earlier.baseline.model_copy(update={"seeds": tuple(best)})
    theirs = replace(plan_of(earlier), known=known_points([result]))
    mine = plan_of(earlier.model_copy(update={"baseline": alone}))
    return {
        (key := one.stages[-1].key): point.model_copy(update={"key": key})
        for other, one in zip(theirs.all_chains, mine.all_chains, strict=True)
        if (point := theirs.found(other)) is not None
    }
