"""One HTML page that needs nothing else: verdicts, figure, tables, settings, and its data."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pycaffe_prune.experiments.result import ExperimentResult, Method
from pycaffe_prune.reports.compare import Judged, judge
from pycaffe_prune.reports.paper import SOURCE
from pycaffe_prune.reports.plot import Curve, Plot, caption, own_plot, plot_of, ticks
from pycaffe_prune.reports.rows import Row, sample_warning
from pycaffe_prune.reports.tables import points_grid, rounds_grid, shapes_grid, units_grid

__all__ = ["chart", "command", "flatten", "render_html"]

_WIDTH, _HEIGHT = 720, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 30, 46, 86


@dataclass(frozen=True)
class _Tick:
    at: float
    label: str


@dataclass(frozen=True)
class _Mark:
    x: float
    y: float
    label: str


@dataclass(frozen=True)
class _Line:
    method: Method
    name: str
    points: str
    """For an SVG polyline; points outside the axes are in it, the line is cut off there."""
    marks: tuple[_Mark, ...]


@dataclass(frozen=True)
class _Chart:
    """A plot in the coordinates of its SVG."""

    title: str
    caption: str
    x_ticks: tuple[_Tick, ...]
    y_ticks: tuple[_Tick, ...]
    lines: tuple[_Line, ...]
    baseline: _Mark | None
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    top: int = _TOP
    right: int = _WIDTH - _RIGHT
    bottom: int = _HEIGHT - _BOTTOM


def chart(plot: Plot) -> _Chart:
    """Place everything that a plot shows on an SVG of 720 by 480."""
    x_scale = (_WIDTH - _LEFT - _RIGHT) / (plot.x.high - plot.x.low)
    y_scale = (_HEIGHT - _TOP - _BOTTOM) / (plot.y.high - plot.y.low)

    def x(value: float) -> float:
        return round(_LEFT + (value - plot.x.low) * x_scale, 2)

    def y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (value - plot.y.low) * y_scale, 2)

    def line(curve: Curve) -> _Line:
        return _Line(
            curve.method,
            curve.name,
            " ".join(f"{x(row.reduction)},{y(row.after)}" for row in curve.points),
            tuple(
                _Mark(x(row.reduction), y(row.after), _describe(row))
                for row in curve.points
                if plot.shows(row)
            ),
        )

    baseline = None
    if plot.baseline is not None and plot.baseline_inside:
        baseline = _Mark(_LEFT, y(plot.baseline), f"baseline: accuracy {plot.baseline:.2f} %")
    return _Chart(
        title=f"Accuracy against the reduction of FC weights, {plot.title}",
        caption=caption(plot),
        x_ticks=tuple(_Tick(x(value), f"{value:g}") for value in ticks(plot.x)),
        y_ticks=tuple(_Tick(y(value), f"{round(value, 6):g}") for value in ticks(plot.y)),
        lines=tuple(line(curve) for curve in plot.curves),
        baseline=baseline,
    )


def _describe(row: Row) -> str:
    beside = "" if row.difference is None else f" ({row.difference:+.2f} points to the baseline)"
    return (
        f"{row.name}, {row.parameter}: reduction {row.reduction:.2f} %, "
        f"accuracy {row.after:.2f} %{beside}"
    )


def command(result: ExperimentResult) -> str:
    """Return the command line that repeats the experiment."""
    words = ["caffe-prune", "reproduce", result.experiment, "--preset", result.preset]
    words += ["--engine", result.engine, "--jobs", str(result.jobs)]
    used = result.execution.model_dump(exclude_defaults=True)
    tf32 = ["--tf32"] if used.pop("tf32", False) else []
    settings = [word for name, value in used.items() for word in (f"--{name}", str(value))]
    return shlex.join([*words, *settings, *tf32])


def flatten(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as dotted names and their values in words."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value))
        else:
            yield prefix + name, str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _facts(result: ExperimentResult) -> dict[str, list[tuple[str, str]]]:
    data, machine = result.data, result.machine
    return {
        "Data": [
            ("name", data.name),
            ("training images", f"{data.train_images:,}"),
            ("test images", f"{data.test_images:,}"),
            ("training SHA-256", data.train_sha256),
            ("test SHA-256", data.test_sha256),
        ],
        "Machine": [
            ("CPU", machine.cpu),
            ("cores", str(machine.cores)),
            ("system", machine.system),
            ("device", result.execution.device + (", TF32" if result.execution.tf32 else "")),
            ("threads of a stage", str(result.execution.threads)),
            ("stages side by side", str(result.jobs)),
            ("stages in one process", str(result.execution.pack)),
            ("time of all stages, one after the other", _duration(result.wall_seconds)),
        ],
        "Versions": [("engine", result.engine), *result.versions.items()],
        "Settings": list(flatten(result.settings)),
    }


def _embedded(result: ExperimentResult) -> Markup:
    """The result as JSON that no HTML parser can be led out of; still the same JSON."""
    text = result.model_dump_json(indent=1)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704  (every sign that HTML knows was replaced just above)


def _tally(judged: Sequence[Judged]) -> str:
    counts = Counter(entry.verdict for entry in judged)
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"Of {len(judged)} claims: {listed}"


def render_html(result: ExperimentResult) -> str:
    """Return the page. It asks nothing of the network, and works without its script as well."""
    plot = plot_of(result)
    charts = [chart(plot), *([chart(own_plot(result))] if plot.outside else [])]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files(__package__).joinpath("report.html.j2").read_text("utf-8")
    judged = judge(result)
    return environment.from_string(template).render(
        result=result,
        warning=sample_warning(result),
        source=SOURCE,
        judged=judged,
        tally=_tally(judged),
        charts=charts,
        points=points_grid(result),
        units=units_grid(result),
        shapes=shapes_grid(result),
        rounds=rounds_grid(result),
        facts=_facts(result),
        command=command(result),
        data=_embedded(result),
    )
