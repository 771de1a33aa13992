"""Table 5 row by row: connection pruning of CaffeNet, ours beside the paper's."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isclose
from typing import Literal

from pycaffe_prune.experiments.result import ExperimentResult, LayerRate, Point
from pycaffe_prune.reports.paper.compare import why_not_comparable
from pycaffe_prune.reports.paper.figures_and_tables import TABLE_5, Rates
from pycaffe_prune.reports.rows import baseline_of, papers_accuracy, papers_name, percent

__all__ = ["Table5Row", "judge_predicted", "judge_rows", "shown", "table_5"]

Verdict = Literal["reproduced", "not reproduced", "not run"]

_BASELINE = Fraction("91.82")
_RATE_POINTS = Fraction(1)
_LOSS_POINTS = Fraction("0.5")
_PREDICTED_POINTS = Fraction(2)
_LAYERS = ("fc6", "fc7", "fc8")

_Rates = Mapping[str, Fraction]
"""Reduction in % by layer, and of all of them as ``all``."""


@dataclass(frozen=True)
class Table5Row:
    """One alpha. Rates and accuracies in %, losses in points to the own baseline."""

    paper: Rates
    papers_loss: Fraction
    ours: _Rates | None
    """None: this alpha was not run."""
    accuracy: Fraction | None
    loss: Fraction | None
    predicted: _Rates | None
    """Foreseen from the unpruned network; None where it was not asked."""
    verdict: Verdict

    @property
    def printed(self) -> _Rates:
        """The paper's rates under the names of ours."""
        return _printed(self.paper)


def table_5(result: ExperimentResult) -> list[Table5Row]:
    """Return the paper's 14 rows, each with ours where there is one."""
    points = {point.alpha: point for point in result.select("connections")}
    foreseen = {} if result.prediction is None else {r.alpha: r for r in result.prediction.rates}
    found = []
    for paper in TABLE_5:
        point = next((p for a, p in points.items() if a is not None and _same(a, paper)), None)
        predicted = next((r for alpha, r in foreseen.items() if _same(alpha, paper)), None)
        found.append(
            _row(result, paper, point, None if predicted is None else _rates(predicted.layers))
        )
    return found


def _same(alpha: float, row: Rates) -> bool:
    return isclose(alpha, row.alpha, abs_tol=1e-6)


def _rates(layers: tuple[LayerRate, ...]) -> _Rates:
    rates = {papers_name(row.layer): 100 * (1 - Fraction(row.kept, row.weights)) for row in layers}
    kept = Fraction(sum(row.kept for row in layers), sum(row.weights for row in layers))
    return {**rates, "all": 100 * (1 - kept)}


def _printed(row: Rates) -> _Rates:
    names = {"fc6": row.fc6, "fc7": row.fc7, "fc8": row.fc8, "all": row.all_fc}
    return {name: Fraction(str(rate)) for name, rate in names.items()}


def _row(
    result: ExperimentResult, paper: Rates, point: Point | None, predicted: _Rates | None
) -> Table5Row:
    papers_loss = _BASELINE - Fraction(str(paper.accuracy))
    baseline = baseline_of(result)
    if point is None or baseline is None:
        return Table5Row(paper, papers_loss, None, None, None, predicted, "not run")
    ours = _rates(point.rounds[-1].layers)
    loss = 100 * (papers_accuracy(baseline) - papers_accuracy(point))
    held = _near(ours, _printed(paper), _RATE_POINTS) and abs(loss - papers_loss) <= _LOSS_POINTS
    judged: Verdict = "reproduced" if held else "not reproduced"
    return Table5Row(
        paper=paper,
        papers_loss=papers_loss,
        ours=ours,
        accuracy=100 * papers_accuracy(point),
        loss=loss,
        predicted=predicted,
        verdict="not run" if why_not_comparable(result) else judged,
    )


def _near(ours: _Rates, printed: _Rates, points: Fraction) -> bool:
    return all(name in ours and abs(ours[name] - printed[name]) <= points for name in printed)


def judge_rows(result: ExperimentResult) -> tuple[Verdict, str]:
    """Return the verdict on all rows together, and how each came out."""
    found = table_5(result)
    run = [row for row in found if row.verdict != "not run"]
    if not run:
        return "not run", "None of table 5's alphas was run."
    held = [row for row in run if row.verdict == "reproduced"]
    told = f"{len(held)} of {len(run)} rows reproduced, {len(found) - len(run)} not run."
    failed = ", ".join(f"{row.paper.alpha:g}" for row in run if row not in held)
    if failed:
        return "not reproduced", f"{told} Not reproduced: alpha {failed}."
    return ("reproduced" if len(run) == len(found) else "not run"), told


def judge_predicted(result: ExperimentResult) -> tuple[Verdict, str]:
    """Return the verdict on the rates that the unpruned network alone foretells."""
    rows = [(row, row.predicted) for row in table_5(result) if row.predicted is not None]
    if not rows:
        return "not run", "The result foretells no rates."
    gaps = [
        (abs(predicted[name] - row.printed[name]), name, row.paper.alpha)
        for row, predicted in rows
        for name in _LAYERS
        if name in predicted
    ]
    if not gaps:
        return "not run", "The result foretells no rates of fc6, fc7 and fc8."
    worst, name, alpha = max(gaps)
    near = [all(_near_layer(row, predicted, name) for name in _LAYERS) for row, predicted in rows]
    told = (
        f"{sum(near)} of {len(rows)} rows within 2 points; the largest difference: "
        f"{float(worst):.2f} points ({name}, alpha {alpha:g})."
    )
    if all(near) and len(rows) < len(TABLE_5):
        return "not run", f"{told} {len(TABLE_5) - len(rows)} rows were not foretold."
    return ("reproduced" if all(near) else "not reproduced"), told


def _near_layer(row: Table5Row, predicted: _Rates, name: str) -> bool:
    return name in predicted and abs(predicted[name] - row.printed[name]) <= _PREDICTED_POINTS


def shown(rates: _Rates | None, name: str) -> str:
    """Return a rate with two decimals, or a dash."""
    return "–" if rates is None or name not in rates else f"{percent(rates[name] / 100):.2f}"
