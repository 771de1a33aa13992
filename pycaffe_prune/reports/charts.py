"""Plots placed on SVGs: what the page draws without its script, and what its zoom starts from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from pycaffe_prune.reports.paper.figures_and_tables import Axis
from pycaffe_prune.reports.plot import PAPERS_CURVE, Plot, caption, ticks
from pycaffe_prune.reports.rows import Row, accuracy_title
from pycaffe_prune.reports.sizes import Cost, SizeRow

__all__ = ["MEASURES", "Chart", "Mark", "chart", "size_charts", "size_text"]

_WIDTH, _HEIGHT = 720, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 30, 46, 86


@dataclass(frozen=True)
class _Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A point: its values (of a logarithmic axis the power of ten), its place, and its words."""

    u: float
    v: float
    x: float
    y: float
    label: str
    shown: bool = True
    spread: tuple[float, float] | None = None
    """Lowest and highest accuracy of the seeds."""
    whisker: tuple[float, float] | None = None
    """The same in the SVG, from ``y``: below it and above it."""


@dataclass(frozen=True)
class _Line:
    kind: str
    """CSS class: a method, one of `PRESET_KINDS`, or ``paper``."""
    name: str
    marks: tuple[Mark, ...]

    @property
    def points(self) -> str:
        """For an SVG polyline; points outside the axes are in it, the line is cut off there."""
        return " ".join(f"{mark.x},{mark.y}" for mark in self.marks)


@dataclass(frozen=True)
class Chart:
    """A plot in the coordinates of its SVG."""

    title: str
    caption: str
    x_name: str
    y_name: str
    x: tuple[float, float]
    """Ends of the axis, of a logarithmic one as powers of ten."""
    y: tuple[float, float]
    x_ticks: tuple[_Tick, ...]
    y_ticks: tuple[_Tick, ...]
    lines: tuple[_Line, ...]
    baseline: Mark | None
    strip: tuple[float, float] | None = None
    """Where the strip of the plot lies in the SVG: its top and its height."""
    logarithmic: bool = False
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    top: int = _TOP
    right: int = _WIDTH - _RIGHT
    bottom: int = _HEIGHT - _BOTTOM


class _Frame:
    """Values to places in the SVG."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.ends = x, y
        self._x_scale = (_WIDTH - _LEFT - _RIGHT) / (x[1] - x[0])
        self._y_scale = (_HEIGHT - _TOP - _BOTTOM) / (y[1] - y[0])

    def x(self, value: float) -> float:
        return round(_LEFT + (value - self.ends[0][0]) * self._x_scale, 2)

    def y(self, value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (value - self.ends[1][0]) * self._y_scale, 2)

    def mark(
        self, u: float, v: float, label: str, spread: tuple[float, float] | None = None
    ) -> Mark:
        (x_low, x_high), (y_low, y_high) = self.ends
        shown = x_low <= u <= x_high and y_low <= v <= y_high
        at = self.y(v)
        whisker = None
        if spread is not None:
            low, high = (round(self.y(min(max(end, y_low), y_high)) - at, 2) for end in spread)
            whisker = low, high
        return Mark(u, v, self.x(u), at, label, shown, spread, whisker)


def chart(plot: Plot) -> Chart:
    """Place everything that a plot shows on an SVG of 720 by 480."""
    frame = _Frame((plot.x.low, plot.x.high), (plot.y.low, plot.y.high))
    lines = [
        _Line(
            curve.kind,
            curve.name,
            tuple(
                frame.mark(row.reduction, row.after, _describe(curve.name, row))
                for row in curve.points
            ),
        )
        for curve in plot.curves
    ]
    if plot.paper:
        marks = (frame.mark(u, v, _describe_papers(u, v)) for u, v in plot.paper)
        lines.append(_Line("paper", PAPERS_CURVE, tuple(marks)))
    return Chart(
        title=f"Accuracy against the reduction of FC weights, {plot.title}",
        caption=caption(plot),
        x_name="FC parameter reduction rate (%)",
        y_name=accuracy_title(plot.accuracy_name),
        x=frame.ends[0],
        y=frame.ends[1],
        x_ticks=_ticks(plot.x, frame.x),
        y_ticks=_ticks(plot.y, frame.y),
        lines=tuple(lines),
        baseline=_baseline(plot, frame),
        strip=_strip(plot, frame),
    )


def _ticks(axis: Axis, place: Callable[[float], float]) -> tuple[_Tick, ...]:
    return tuple(_Tick(place(value), f"{round(value, 6):g}") for value in ticks(axis))


def _baseline(plot: Plot, frame: _Frame) -> Mark | None:
    if plot.baseline is None:
        return None
    label = f"baseline: accuracy {plot.baseline:.2f} %"
    return frame.mark(plot.x.low, plot.baseline, label)


def _strip(plot: Plot, frame: _Frame) -> tuple[float, float] | None:
    if plot.strip is None:
        return None
    low, high = map(frame.y, plot.strip)
    return high, round(low - high, 2)


def _describe(name: str, row: Row) -> str:
    beside = "" if row.difference is None else f" ({row.difference:+.2f} points to the baseline)"
    return (
        f"{name}, {row.parameter}: reduction {row.reduction:.2f} %, "
        f"accuracy {row.after:.2f} %{beside}"
    )


def _describe_papers(reduction: float, accuracy: float) -> str:
    return f"{PAPERS_CURVE}: reduction {reduction:.2f} %, accuracy {accuracy:.2f} %"


MEASURES: dict[str, Callable[[Cost], int]] = {
    "parameters left": lambda cost: cost.parameters,
    "MACs for one image, zeros left out": lambda cost: cost.macs,
    "bytes of the caffemodel": lambda cost: cost.dense_bytes,
    "bytes of the sparse form": lambda cost: cost.sparse_bytes,
}
"""What size means, on four charts."""


def size_charts(rows: Sequence[SizeRow], plot: Plot) -> list[Chart]:
    """Return accuracy against each measure of size, on logarithmic axes; none without rows.

    A net of which nothing is left by a measure has no place on that chart.
    """
    return [
        _size_chart(rows, plot, name, measure)
        for name, measure in MEASURES.items()
        if any(measure(row.cost) > 0 for row in rows)
    ]


def _size_chart(
    every: Sequence[SizeRow], plot: Plot, name: str, measure: Callable[[Cost], int]
) -> Chart:
    rows = [row for row in every if measure(row.cost) > 0]
    sizes = [log10(measure(row.cost)) for row in rows]
    low, high = min(sizes), max(sizes)
    margin = max(0.05, 0.04 * (high - low))
    frame = _Frame((low - margin, high + margin), (plot.y.low, plot.y.high))
    lines = []
    for method, title in {row.method: row.name for row in rows}.items():
        marks = [
            frame.mark(
                size,
                row.accuracy,
                _describe_size(row, name, measure(row.cost)),
                (row.lowest, row.highest) if row.seeds > 1 else None,
            )
            for size, row in zip(sizes, rows, strict=True)
            if row.method == method
        ]
        if marks:
            marks.sort(key=lambda mark: -mark.u)
            lines.append(_Line(plot.kinds.get(method, "unpruned"), title, tuple(marks)))
    left_out = len(every) - sum(mark.shown for line in lines for mark in line.marks)
    note = f" {left_out} points lie outside the axes; the table has them all." if left_out else ""
    return Chart(
        title=f"Accuracy against {name}, {plot.title}",
        caption=f"{_first_up(name)}, on a logarithmic axis.{note}",
        x_name=_first_up(name),
        y_name=accuracy_title(plot.accuracy_name),
        x=frame.ends[0],
        y=frame.ends[1],
        x_ticks=_log_ticks(frame),
        y_ticks=_ticks(plot.y, frame.y),
        lines=tuple(lines),
        baseline=None,
        logarithmic=True,
    )


def _log_ticks(frame: _Frame) -> tuple[_Tick, ...]:
    low, high = frame.ends[0]
    steps: Iterable[int] = (1, 2, 5) if high - low < 2.2 else (1,)
    values = [step * 10**power for power in range(floor(low), ceil(high)) for step in steps]
    return tuple(
        _Tick(frame.x(log10(value)), size_text(value))
        for value in values
        if low <= log10(value) <= high
    )


def size_text(value: float) -> str:
    """Return a count as people read it at an axis: 20k, 5M."""
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{sign}"
    return f"{value:g}"


def _describe_size(row: SizeRow, name: str, size: int) -> str:
    words = f"{row.name}, {row.parameter}: {name} {size:,}, accuracy {row.accuracy:.2f} %"
    if row.seeds > 1:
        words += f" ({row.seeds} seeds: {row.lowest:.2f} to {row.highest:.2f} %)"
    return words


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
