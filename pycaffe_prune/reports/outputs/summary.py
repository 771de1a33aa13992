"""The report as JSON: verdicts with their numbers and rules, and every table of the page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.methods.curves import method_curves
from pycaffe_prune.reports.paper.claims import NOTES
from pycaffe_prune.reports.paper.compare import compare_shapes, compare_units
from pycaffe_prune.reports.paper.figures_and_tables import NETWORKS, TABLE_1
from pycaffe_prune.reports.paper.judge import Judged, judge, judge_together
from pycaffe_prune.reports.paper.table5 import Table5Row, table_5
from pycaffe_prune.reports.rows import accuracy_name, rows, sample_warning
from pycaffe_prune.reports.sizes import size_rows

__all__ = ["report_json"]


def report_json(results: Sequence[ExperimentResult]) -> str:
    """Return the content of ``report.json``; rates and accuracies in %, differences in points."""
    content = {
        "schema_version": 1,
        "claims_about_two_networks": _claims(judge_together(results)),
        "results": [_result(result) for result in results],
        "table_1": [row._asdict() for row in TABLE_1],
    }
    return json.dumps(content, indent=1) + "\n"


def _claims(judged: Iterable[Judged]) -> list[dict[str, object]]:
    return [
        {**entry.claim._asdict(), "verdict": entry.verdict, "ours": entry.ours, "rule": entry.rule}
        for entry in judged
    ]


def _result(result: ExperimentResult) -> dict[str, object]:
    network = NETWORKS.get(result.experiment)
    return {
        "experiment": result.experiment,
        "preset": result.preset,
        "title": result.title,
        "engine": result.engine,
        "finished": result.finished,
        "data": result.data.model_dump(mode="json"),
        "accuracy_name": accuracy_name(result),
        "warning": sample_warning(result),
        "note": NOTES.get(result.experiment),
        "claims": _claims(judge(result)),
        "points": [asdict(row) for row in rows(result)],
        "unit_pruning_against_connections": [
            {name: value for name, value in asdict(row).items() if name != "gap"}
            for row in compare_units(result)
        ],
        "small_models_against_unit_pruning": [asdict(row) for row in compare_shapes(result)],
        "methods": [asdict(curve) for curve in method_curves(result)],
        "sizes": [asdict(row) for row in size_rows(result)],
        "papers_weights": [] if network is None else [row._asdict() for row in network.layers],
        "table_5": _table_5(result),
    }


def _table_5(result: ExperimentResult) -> list[dict[str, object]]:
    if result.experiment != "caffenet-oxford102":
        return []
    return [_table_5_row(row) for row in table_5(result)]


def _table_5_row(row: Table5Row) -> dict[str, object]:
    def plain(rates: Mapping[str, Fraction] | None) -> dict[str, float] | None:
        return None if rates is None else {name: float(rate) for name, rate in rates.items()}

    return {
        "alpha": row.paper.alpha,
        "verdict": row.verdict,
        "paper": {**row.paper._asdict(), "points_lost": float(row.papers_loss)},
        "ours": plain(row.ours),
        "accuracy": None if row.accuracy is None else float(row.accuracy),
        "points_lost": None if row.loss is None else float(row.loss),
        "foretold": plain(row.predicted),
    }
