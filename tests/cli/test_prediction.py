"""Foreseen rates beside the paper's Table 5 and what came out."""

import io

from rich.console import Console

from pycaffe_prune.cli.prediction import prediction_table
from pycaffe_prune.experiments.result import LayerRate, PredictedRates, Prediction


def _prediction(*alphas: float) -> Prediction:
    rates = tuple(
        PredictedRates(
            alpha=alpha,
            layers=(
                LayerRate(layer="fc6", weights=200, kept=50, reduction=0.75),
                LayerRate(layer="fc8_oxford_102", weights=100, kept=40, reduction=0.6),
            ),
            reduction=0.7,
        )
        for alpha in alphas
    )
    return Prediction(shrink=0.8017, rates=rates)


def _shown(experiment: str, prediction: Prediction) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(prediction_table(experiment, prediction))
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_a_row_stands_beside_that_of_table_5_where_it_has_one():
    lines = _shown("caffenet-oxford102", _prediction(1.0, 1.1))
    assert "1 75.00/80.97 60.00/83.74 70.00/80.62" in lines
    assert "1.1 75.00/– 60.00/– 70.00/–" in lines
    assert any("0.8017" in line for line in lines)


def test_the_paper_has_no_such_table_for_other_networks():
    lines = _shown("lenet-300-100", _prediction(1.0))
    assert "1 75.00 60.00 70.00" in lines
    assert not any("Table 5" in line for line in lines)
