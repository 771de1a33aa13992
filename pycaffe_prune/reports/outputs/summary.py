"""The report as JSON: verdicts with their numbers and rules, and every table of the page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from fractions import Fraction

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.methods.curves import method_curves
from pycaffe_prune.reports.methods.worth import worth
from pycaffe_prune.reports.paper.claims import NOTES
from pycaffe_prune.reports.paper.compare import compare_shapes, compare_units
from pycaffe_prune.reports.paper.figures_and_tables import NETWORKS, TABLE_1
from pycaffe_prune.reports.paper.judge import Judged, judge, judge_together
from pycaffe_prune.reports.paper.table5 import Table5Row, table_5
from pycaffe_prune.reports.readings.fit import Reading, readings
from pycaffe_prune.reports.rows import accuracy_name, rows, sample_warning
from pycaffe_prune.reports.sizes import size_rows

__all__ = ["report_json"]


def report_json(results: Sequence[ExperimentResult]) -> str:
    """Return the content of ``report.json``; rates and accuracies in %, differences in points."""
    parts = {
        "schema_version": "1",
        "claims_about_two_networks": _list(map(_line, _claims(judge_together(results)))),
        "readings": _list(_line(_reading(one)) for group in readings(results) for one in group),
        "results": _list(_object(_result(result)) for result in results),
        "table_1": _list(_line(row._asdict()) for row in TABLE_1),
    }
    return _braced(parts) + "\n"


# One row a line: an encoder that indents is Python's own, ten times slower than the one in C.


def _object(content: Mapping[str, object]) -> str:
    return _braced(
        {
            name: _list(map(_line, value)) if isinstance(value, (list, tuple)) else _line(value)
            for name, value in content.items()
        }
    )


def _braced(parts: Mapping[str, str]) -> str:
    return "{\n" + ",\n".join(f"{_line(name)}: {text}" for name, text in parts.items()) + "\n}"


def _list(rows: Iterable[str]) -> str:
    return "[" + ",\n".join(rows) + "]"


def _line(value: object) -> str:
    return json.dumps(value, default=_fields)


def _fields(row: object) -> dict[str, object]:
    """What a row of a table holds, which may hold rows itself."""
    if not is_dataclass(row) or isinstance(row, type):
        raise TypeError(f"a report's JSON cannot hold {row!r}")
    return {field.name: getattr(row, field.name) for field in fields(row)}


def _claims(judged: Iterable[Judged]) -> list[dict[str, object]]:
    return [
        {**entry.claim._asdict(), "verdict": entry.verdict, "ours": entry.ours, "rule": entry.rule}
        for entry in judged
    ]


def _reading(reading: Reading) -> dict[str, object]:
    return {
        **_fields(reading),
        "signs_shown": reading.met,
        "signs_judged": reading.judged,
        "ticks_off": reading.distance,
    }


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
        "points": rows(result),
        "unit_pruning_against_connections": [
            {name: value for name, value in _fields(row).items() if name != "gap"}
            for row in compare_units(result)
        ],
        "small_models_against_unit_pruning": compare_shapes(result),
        "methods": method_curves(result),
        "worth_at_equal_accuracy": worth(result),
        "sizes": size_rows(result),
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
