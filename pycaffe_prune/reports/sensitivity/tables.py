"""A sensitivity analysis as tables."""

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table

from pycaffe_prune.experiments.result import Score
from pycaffe_prune.experiments.sensitivity.result import (
    BudgetSuggestion,
    SensitivityResult,
    Suggestion,
)
from pycaffe_prune.reports.rows import accuracy, percent
from pycaffe_prune.screen import plain

__all__ = [
    "budget_table",
    "print_sensitivity",
    "rate_names",
    "sample_note",
    "sensitivity_table",
    "suggestion_table",
]

_WIDE = 200


def sample_note(result: SensitivityResult) -> str | None:
    """Return the sentence that every output shows when the data is the bundled sample."""
    if not result.is_sample:
        return None
    return (
        f"SAMPLE DATA, NOT THE REAL DATA SET: tested on {result.settings.images:,} images of "
        f"'{result.data}'. "
        "These numbers say nothing about the real data set's."
    )


def print_sensitivity(result: SensitivityResult, console: Console) -> None:
    """Print accuracy by layer and rate, and the suggestion where there is one."""
    if not console.is_terminal:
        console.width = max(console.width, _WIDE)  # a file has no edge at which to fold figures
    parts: list[RenderableType] = [sensitivity_table(result)]
    if result.suggestion is not None:
        parts += ["", suggestion_table(result.suggestion)]
    if result.budget_suggestion is not None:
        parts += ["", budget_table(result.budget_suggestion, _pruned(result))]
    note = sample_note(result)
    if note is not None:
        warning = plain(note, "bold red")
        parts = [warning, *parts, warning]
    console.print(Group(*parts))


def _judge(accuracy_name: str | None) -> str:
    return "" if accuracy_name is None else f" in '{accuracy_name}'"


def _percent(score: Score) -> str:
    return f"{percent(accuracy(score)):.2f}"


def _pruned(result: SensitivityResult) -> str:
    return "weights" if result.settings.method == "connections" else "units"


def rate_names(result: SensitivityResult) -> list[str]:
    """Return the rates as % for people."""
    return [f"{percent(rate):.4g}" for rate in result.settings.rates]


def sensitivity_table(result: SensitivityResult) -> Table:
    """Return a line for each layer: its accuracy at each rate, in %, without retraining."""
    what = _pruned(result)
    table = Table(
        title=plain(
            f"{result.title}: accuracy %{_judge(result.accuracy_name)} with one layer pruned, not "
            "retrained"
        ),
        caption=plain(
            f"Columns: % of the layer's {what} that are pruned. "
            f"{result.settings.images:,} test images; "
            f"{_percent(result.baseline)} % with none pruned."
        ),
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("layer")
    for head in (what, *rate_names(result)):
        table.add_column(head, justify="right")
    for layer in result.settings.layers:
        found = {point.rate: _percent(point.score) for point in result.curve(layer.layer)}
        cells = (found.get(rate, "–") for rate in result.settings.rates)
        table.add_row(plain(layer.layer), f"{layer.size:,}", *cells)
    return table


def suggestion_table(suggestion: Suggestion) -> Table:
    """Return the suggested rates beside those of one alpha for all, and what both cost."""
    judge = _judge(suggestion.suggested.score.accuracy_name)
    table = Table(
        title=plain(f"{percent(suggestion.total):g} % of the weights, not retrained"),
        caption=plain(
            f"Predicted for the suggestion: {percent(suggestion.predicted_drop):.2f} points lost, "
            "if what the layers lose alone added up." + (f" Accuracy{judge}." if judge else "")
        ),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    table.add_column("layer")
    for head in ("weights", "suggested α", "pruned %", "single α", "pruned %"):
        table.add_column(head, justify="right")
    both = (suggestion.suggested, suggestion.single)
    for own, single in zip(*(measured.layers for measured in both), strict=True):
        cells = [
            cell
            for row in (own, single)
            for cell in (f"{row.alpha:g}", f"{percent(1 - row.kept / row.weights):.2f}")
        ]
        table.add_row(plain(own.layer), f"{own.weights:,}", *cells)
    table.add_section()
    weights = sum(row.weights for row in suggestion.suggested.layers)
    reductions = [cell for row in both for cell in ("", f"{percent(row.reduction):.2f}")]
    table.add_row("all", f"{weights:,}", *reductions)
    accuracies = [cell for row in both for cell in ("", _percent(row.score))]
    table.add_row("accuracy %", "", *accuracies)
    return table


_COUNTED = {"parameters": "parameters", "macs": "MACs", "bytes": "bytes"}


def budget_table(suggestion: BudgetSuggestion, pruned: str) -> Table:
    """Return the suggested rates beside one rate for all, what both leave, and what they cost.

    Args:
        suggestion: With the budget.
        pruned: What of a layer is pruned: its weights, or its units.
    """
    judge = _judge(suggestion.suggested.score.accuracy_name)
    counted, share = _COUNTED[suggestion.quantity], suggestion.budget / suggestion.whole
    table = Table(
        title=plain(
            f"at most {suggestion.budget:,} {counted} ({percent(share):.4g} % of "
            f"{suggestion.whole:,}), not retrained"
        ),
        caption=plain(
            f"Predicted for the suggestion: {percent(suggestion.predicted_drop):.2f} points lost, "
            "if what the layers lose alone added up." + (f" Accuracy{judge}." if judge else "")
        ),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    table.add_column("layer")
    for head in (pruned, "suggested %", "kept", "one rate %", "kept"):
        table.add_column(head, justify="right")
    both = (suggestion.suggested, suggestion.single)
    for own, single in zip(*(net.layers for net in both), strict=True):
        cells = [
            cell for row in (own, single) for cell in (f"{percent(row.rate):.2f}", f"{row.kept:,}")
        ]
        table.add_row(plain(own.layer), f"{own.size:,}", *cells)
    table.add_section()
    table.add_row(counted, "", *(cell for net in both for cell in ("", f"{net.amount:,}")))
    table.add_row("accuracy %", "", *(cell for net in both for cell in ("", _percent(net.score))))
    return table
