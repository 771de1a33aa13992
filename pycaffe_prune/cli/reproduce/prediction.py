"""The rates foreseen from the unpruned network, beside what came out and the paper's Table 5."""

from collections.abc import Callable

from rich import box
from rich.console import RenderableType
from rich.table import Table

from pycaffe_prune.cli.options import say_remark
from pycaffe_prune.engines.base import Event
from pycaffe_prune.errors import PruneError
from pycaffe_prune.experiments.plan import Plan
from pycaffe_prune.experiments.reproduce import foresee
from pycaffe_prune.experiments.result import ExperimentResult, LayerRate, Prediction
from pycaffe_prune.experiments.scheduler import StageObserver
from pycaffe_prune.experiments.spec import ExperimentSpec
from pycaffe_prune.experiments.stages import Stage
from pycaffe_prune.reports.paper.figures_and_tables import TABLE_5

__all__ = ["prediction_table", "telling_prediction"]

_Rates = dict[str, float]
"""Per column, %."""
_PAPERS = {
    row.alpha: {"fc6": row.fc6, "fc7": row.fc7, "fc8_oxford_102": row.fc8, "all FC": row.all_fc}
    for row in TABLE_5
}
_OF_TABLE_5 = "caffenet"


def prediction_table(
    experiment: str, prediction: Prediction, result: ExperimentResult | None = None
) -> RenderableType:
    """Return a row per alpha: each layer's rate as foreseen, as measured, and the paper's.

    Args:
        experiment: Its name; the paper has such a table for CaffeNet.
        prediction: What is foreseen.
        result: What came out, if it is there.
    """
    has_paper = experiment.startswith(_OF_TABLE_5)
    rates = {row.alpha: _rates(row.layers, row.reduction) for row in prediction.rates}
    measured = {
        point.alpha: _rates(point.rounds[-1].layers, point.reduction)
        for point in (result.select("connections") if result else ())
    }
    table = Table(
        title="Reduction in %, foreseen from the unpruned network"
        + (" / measured" if measured else "")
        + (" / paper, Table 5" if has_paper else ""),
        caption=f"Weight decay alone shrinks a weight to {prediction.shrink:.4f} of itself before "
        "the last pruning",
        box=box.SIMPLE_HEAD,
    )
    columns = list(next(iter(rates.values()), {}))
    for head in ("alpha", *columns):
        table.add_column(head, justify="right")
    for alpha, foreseen in rates.items():
        parts = [foreseen]
        parts += [measured.get(alpha, {})] if measured else []
        parts += [_PAPERS.get(alpha, {})] if has_paper else []
        cells = ["/".join(_cell(part.get(name)) for part in parts) for name in columns]
        table.add_row(f"{alpha:g}", *cells)
    return table


def _rates(layers: tuple[LayerRate, ...], reduction: float) -> _Rates:
    found = {row.layer: 100 * row.reduction for row in layers}
    return {**found, "all FC": 100 * reduction}


def _cell(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.2f}"


def telling_prediction(
    spec: ExperimentSpec, plan: Plan, observe: StageObserver, show: Callable[[RenderableType], None]
) -> StageObserver:
    """Wrap an observer: when the last baseline is done, ``show`` what is foreseen from the best.

    Where all of them are done already and there is more to do, it is shown at once. What cannot be
    foreseen is a remark, and no reason to stop.
    """

    def tell() -> None:
        try:
            prediction = foresee(plan)
        except PruneError as error:
            say_remark(f"nothing can be foreseen from the unpruned network: {error}")
            return
        if prediction is not None:
            show(prediction_table(spec.name, prediction))

    todo = {stage.key for stage in plan.stages if stage.output() is None}
    left = todo & {stage.key for stage in plan.baselines}
    if todo and not left:
        tell()

    def watch(stage: Stage, event: Event | None) -> None:
        observe(stage, event)
        if event is None and stage.key in left:
            left.remove(stage.key)
            if not left:
                tell()

    return watch
