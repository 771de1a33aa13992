"""The rows and the verdicts as tables for the terminal, narrow enough for 80 columns."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.reports.methods.worth import worth
from pycaffe_prune.reports.paper.judge import Judged, Verdict, judge
from pycaffe_prune.reports.rows import Row, accuracy_name, rows, sample_warning
from pycaffe_prune.screen import plain

__all__ = ["terminal"]

_MOST_ROWS = 500
"""More than that nobody reads in a terminal, and they take it a while."""

_STYLES: dict[Verdict, str] = {
    "reproduced": "bold green",
    "not reproduced": "bold red",
    "within noise": "bold yellow",
    "not run": "bold yellow",
}


def terminal(result: ExperimentResult) -> RenderableType:
    """Return the points and the verdicts for a rich console; loud when the data is a sample."""
    parts: list[RenderableType] = [_points_table(result)]
    judged = judge(result)
    if judged:
        parts.append(_claims_table(judged))
    if worth(result):
        parts.append(_worth_table(result))
    warning = sample_warning(result)
    if warning is not None:
        banner = Panel(plain(warning, "bold"), style="bold white on red", box=box.HEAVY)
        parts = [banner, *parts, banner]
    return Group(*parts)


def _points_table(result: ExperimentResult) -> Table:
    every = rows(result)
    found = every[:_MOST_ROWS]
    left_out = len(every) - len(found)
    layers = list(dict.fromkeys(name for row in found for name in row.layers))
    judged = accuracy_name(result)
    judge = "" if judged is None else f" in '{judged}'"
    table = Table(
        title=plain(f"{result.title}, preset {result.preset}"),
        caption=plain(
            "FC: weights removed, of all FC layers and of each; before, after: accuracy"
            f"{judge} around the last round's training; all in %. diff: points to the baseline. "
            "*: another seed is better. !: loss not finite."
            + (f" {left_out:,} more points are in the report." if left_out else "")
        ),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    table.add_column("α or kept", overflow="fold")
    for head in ("all FC", *layers, "before", "after", "diff", "seed"):
        table.add_column(plain(head), justify="right", overflow="fold")
    for before, row in zip([None, *found], found, strict=False):
        if before is not None and before.method != row.method:
            table.add_section()
        table.add_row(*map(plain, _line(row, layers)), style=None if row.selected else "dim")
    return table


def _line(row: Row, layers: Sequence[str]) -> tuple[str, ...]:
    marks = ("" if row.selected else "*") + ("" if row.finite else "!")
    return (
        row.method,
        row.parameter,
        f"{row.reduction:.2f}",
        *(f"{row.layers[name]:.2f}" if name in row.layers else "–" for name in layers),
        f"{row.before:.2f}",
        f"{row.after:.2f}",
        "–" if row.difference is None else f"{row.difference:+.2f}",
        f"{row.seed}{marks}",
    )


def _worth_table(result: ExperimentResult) -> Table:
    table = Table(
        title="What it is worth at equal accuracy",
        caption="lost: points of accuracy, at most. bytes: the smallest form. MACs: with weights "
        "that are not zero, for one image. µJ: an estimate for these and the bytes. "
        "ms: in Caffe, for one image. The report has more.",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("lost", no_wrap=True)
    table.add_column("method", overflow="fold")
    for head in ("accuracy %", "bytes", "MACs", "µJ", "ms"):
        table.add_column(head, justify="right", no_wrap=True)
    found = worth(result)
    for before, row in zip([None, *found], found, strict=False):
        if before is not None and before.loss != row.loss:
            table.add_section()
        table.add_row(
            f"{row.loss:g}" if row.loss else "–",
            plain(row.method),
            f"{row.accuracy:.2f}",
            f"{row.stored:,.0f}",
            "–" if row.macs is None else f"{row.macs:,.0f}",
            "–" if row.energy is None else f"{row.energy:.3g}",
            "–" if row.milliseconds is None else f"{row.milliseconds:.3f}",
        )
    return table


def _claims_table(judged: Sequence[Judged]) -> Table:
    table = Table(title="Ours beside the paper", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("verdict", min_width=10)
    for head in ("claim", "ours", "paper"):
        table.add_column(head, ratio=1, overflow="fold")
    for entry in judged:
        table.add_row(
            plain(entry.verdict, _STYLES[entry.verdict]),
            plain(entry.claim.text),
            plain(entry.ours),
            plain(entry.claim.paper),
        )
        table.add_section()
    return table
