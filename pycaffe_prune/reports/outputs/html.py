"""One HTML page that needs nothing else: verdicts, figures, tables, settings, and its data."""

import csv
import hashlib
import json
import shlex
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.path_names import as_component
from pycaffe_prune.reports.charts import Chart, chart, size_charts
from pycaffe_prune.reports.methods.curves import method_curves
from pycaffe_prune.reports.methods.groups import of_one_net
from pycaffe_prune.reports.methods.tables import methods_grid
from pycaffe_prune.reports.methods.winners import winners_grid
from pycaffe_prune.reports.methods.worth import WORTH_NOTE, worth_grid
from pycaffe_prune.reports.outputs.html_readings import reading_sections
from pycaffe_prune.reports.outputs.html_rows import table_rows
from pycaffe_prune.reports.paper.claims import NOTES
from pycaffe_prune.reports.paper.compare import compared_from
from pycaffe_prune.reports.paper.drawn import opened_by, papers_plot
from pycaffe_prune.reports.paper.figures_and_tables import NETWORKS, SOURCE
from pycaffe_prune.reports.paper.judge import Judged, judge, judge_together
from pycaffe_prune.reports.paper.weigh import noise_note
from pycaffe_prune.reports.plot import own_plot, plot_of, preset_plots
from pycaffe_prune.reports.readings.fit import RULE
from pycaffe_prune.reports.readings.signs import SIGNS
from pycaffe_prune.reports.readings.tables import READINGS_NOTE
from pycaffe_prune.reports.rows import accuracy_name, percent, sample_warning, taken_over
from pycaffe_prune.reports.sizes import size_rows
from pycaffe_prune.reports.tables import (
    PRESETS_NOTE,
    Grid,
    points_grid,
    presets_grid,
    rounds_grid,
    shapes_grid,
    sizes_grid,
    table_1_grid,
    table_5_grid,
    units_grid,
    weights_grid,
)
from pycaffe_prune.shown import shown

__all__ = ["command", "flatten", "points_csv", "render_html"]


_MOST_MARKS = 2_000
"""More charts of more points take a browser long, and show clouds: the tables have them."""


@dataclass(frozen=True)
class _Run:
    """A result with all that its section of the page shows."""

    id: str
    paper: Chart | None
    """The paper's figure, where the page opens with it and this result; else None."""
    file: str
    """Name of its downloads, without the ending."""
    result: ExperimentResult
    warning: str | None
    note: str | None
    judged: Sequence[Judged]
    tally: str
    noise: str
    charts: Sequence[Chart]
    size_charts: Sequence[Chart]
    judge: str
    """Of which layer accuracies are, as the end of a title; empty: not known."""
    table: int | None
    """Number of the paper's table of its weights."""
    weights: Grid
    table_5: Grid
    points: Grid
    units: Grid
    from_rate: str
    shapes: Grid
    sizes: Grid
    methods: Grid
    winners: Grid
    worth: Grid
    methods_figure: str | None
    """An SVG as the page takes it (``data:``); None: nets were not measured."""
    rounds: Grid
    facts: Mapping[str, Sequence[tuple[str, str]]]
    command: str
    data: Markup


def command(result: ExperimentResult) -> str:
    """Return the command line that repeats the experiment."""
    words = ["caffe-prune", "reproduce", result.experiment, "--preset", result.preset]
    words += ["--engine", result.engine, "--jobs", str(result.jobs)]
    used = result.execution.model_dump(exclude_defaults=True)
    accuracy = result.settings.get("accuracy")
    words += [] if accuracy is None else ["--accuracy", str(accuracy)]
    flags = {"tf32": "--tf32", "trusted": "--trust"}
    flagged = [option for name, option in flags.items() if used.pop(name, False)]
    settings = [word for name, value in used.items() for word in (f"--{name}", str(value))]
    return shlex.join([*words, *settings, *flagged])


def flatten(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as dotted names and their values in words."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        elif name == "methods" and isinstance(value, list | tuple):
            for table in filter(lambda table: isinstance(table, Mapping), value):
                yield from flatten(table, f"{table.get('name') or table.get('kind')}.")
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


def _time_of_stages(pack: int) -> str:
    added = "times of all stages, added up"
    return f"{added} (each stage of a pack has its whole pack's)" if pack > 1 else added


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
            (_time_of_stages(result.execution.pack), _duration(result.wall_seconds)),
            *([("points not trained here", taken)] if (taken := taken_over(result)) else []),
        ],
        "Versions": [("engine", result.engine), *result.versions.items()],
        "Settings": list(flatten(result.settings)),
    }


def points_csv(result: ExperimentResult) -> str:
    """Return the table of every point as CSV, its heads first."""
    grid = points_grid(result)
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([grid.heads, *grid.lines])
    return text.getvalue()


def _embedded(result: ExperimentResult) -> Markup:
    """The data as JSON that no HTML parser can be led out of; still the same JSON."""
    data = {"result": result.model_dump(mode="json"), "csv": points_csv(result)}
    text = json.dumps(data, ensure_ascii=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704  (every sign that HTML knows was replaced just above)


def _tally(judged: Sequence[Judged]) -> str:
    counts = Counter(entry.verdict for entry in judged)
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"Of {len(judged)} claims: {listed}" if judged else "No claims are judged"


def _run(number: int, result: ExperimentResult, methods_svg: bytes | None, *, opens: bool) -> _Run:
    plot = plot_of(result)
    judged = judge(result)
    network = NETWORKS.get(result.experiment)
    few = len(result.points) <= _MOST_MARKS
    judge_name = accuracy_name(result)
    return _Run(
        id=f"run-{number}",
        paper=chart(papers_plot(result.experiment)) if opens else None,
        file=as_component(f"{result.experiment}-{result.preset}"),
        result=result,
        warning=sample_warning(result),
        note=NOTES.get(result.experiment),
        judged=judged,
        tally=_tally(judged),
        noise=noise_note(result),
        charts=[chart(plot), *([chart(own_plot(result))] if plot.outside and few else [])],
        size_charts=size_charts(size_rows(result), plot) if few else [],
        judge="" if judge_name is None else f", accuracy in '{judge_name}'",
        table=None if network is None else network.table,
        weights=weights_grid(result),
        table_5=table_5_grid(result),
        points=points_grid(result),
        units=units_grid(result),
        from_rate=f"{percent(compared_from(result)):g}",
        shapes=shapes_grid(result),
        sizes=sizes_grid(result),
        methods=methods_grid(result),
        winners=winners_grid(result),
        worth=worth_grid(result),
        methods_figure=None if methods_svg is None else b64encode(methods_svg).decode(),
        rounds=rounds_grid(result),
        facts=_facts(result),
        command=command(result),
        data=_embedded(result),
    )


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("pycaffe_prune.reports", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
    )
    environment.globals["table_rows"] = table_rows
    return environment


def _seen(value: object) -> object:
    """Every value that the page shows goes through here, and is then escaped for HTML."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _script() -> Markup:
    loader, environment = _templates().loader, _templates()
    assert loader is not None  # noqa: S101  (it was given one)
    parts = [loader.get_source(environment, name)[0] for name in ("chart.js", "download.js")]
    return Markup('"use strict";\n' + "\n".join(parts))  # noqa: S704  (files of this package)


def render_html(
    results: Sequence[ExperimentResult],
    method_figures: Sequence[bytes] = (),
    shared_figures: Sequence[bytes] = (),
    reading_figures: Sequence[bytes] = (),
) -> str:
    """Return the page of one or several results.

    It asks nothing of the network. Its script adds zoom and downloads; all else is there without.
    A browser runs that script alone: the page's policy names its checksum.

    Args:
        results: The finished experiments.
        method_figures: Of each result that has `method_curves`, their figure as SVG.
        shared_figures: Of each group of `of_one_net`, theirs.
        reading_figures: Of each group of `readings`, theirs.
    """
    left = iter(method_figures)
    openings = list(map(id, opened_by(results)))
    runs = []
    for number, result in enumerate(results, 1):
        opens = id(result) in openings
        openings = [one for one in openings if one != id(result)]  # named twice it opens once
        methods_svg = next(left, None) if method_curves(result) else None
        runs.append(_run(number, result, methods_svg, opens=opens))
    names = list(dict.fromkeys(result.title for result in results))
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            title=f"{', '.join(names)}: the paper beside ours",
            source=SOURCE,
            runs=runs,
            warnings=list(dict.fromkeys(run.warning for run in runs if run.warning)),
            together=judge_together(results),
            readings=reading_sections(results, reading_figures),
            rule=RULE,
            readings_note=READINGS_NOTE,
            signs=SIGNS,
            presets=presets_grid(results),
            presets_note=PRESETS_NOTE,
            worth_note=WORTH_NOTE,
            preset_charts=[chart(plot) for plot in preset_plots(results)],
            shared=[
                (group[0].title, b64encode(figure).decode())
                for group, figure in zip(of_one_net(results), shared_figures, strict=False)
            ],
            table_1=table_1_grid(),
            script=_script(),
            script_sha256=b64encode(hashlib.sha256(_script().encode()).digest()).decode(),
        )
        .lstrip()
    )
