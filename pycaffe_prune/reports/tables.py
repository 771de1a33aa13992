"""The rows as tables of text: what Markdown and HTML are made from."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from pycaffe_prune.experiments.result import ExperimentResult
from pycaffe_prune.formats.caffe_pb2 import TRAIN
from pycaffe_prune.net.counts import count_file
from pycaffe_prune.net.state_wish import StateWish
from pycaffe_prune.reports.once import once
from pycaffe_prune.reports.paper.compare import compare_shapes, compare_units
from pycaffe_prune.reports.paper.figures_and_tables import NETWORKS, TABLE_1
from pycaffe_prune.reports.paper.judge import Judged, judge, kept_up_to
from pycaffe_prune.reports.paper.table5 import shown, table_5
from pycaffe_prune.reports.rows import (
    Row,
    accuracy,
    accuracy_name,
    baseline_of,
    papers_accuracy,
    papers_name,
    parameter,
    percent,
    rows,
)
from pycaffe_prune.reports.sizes import SizeRow, layer_counts, net_of, size_rows
from pycaffe_prune.share import share_root

__all__ = [
    "PRESETS_NOTE",
    "Grid",
    "claims_grid",
    "points_grid",
    "presets_grid",
    "rounds_grid",
    "shapes_grid",
    "sizes_grid",
    "table_1_grid",
    "table_5_grid",
    "units_grid",
    "weights_grid",
]


@dataclass(frozen=True)
class Grid:
    """A table of text: the one form that Markdown, terminal and HTML are made from."""

    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    numbers: int
    """How many columns, from the third on, hold numbers and stand to the right."""

    def is_number(self, column: int) -> bool:
        """Whether a column (counted from 0) holds numbers."""
        return 2 <= column < 2 + self.numbers


@once
def points_grid(result: ExperimentResult) -> Grid:
    """Return a line for every point of the result."""
    found = rows(result)
    layers = list(dict.fromkeys(name for row in found for name in row.layers))
    cycled = any(row.cycled is not None for row in found)
    judged = any(row.accuracy_name is not None for row in found)
    heads = ("method", "α or units kept", "all FC %", *(f"{name} %" for name in layers))
    tail = ("before %", "after %", *(["cycled %"] if cycled else []), "to baseline")
    tail = (*tail, "rounds", "seed", *(["accuracy in"] if judged else []), "note")
    lines = tuple(_point_line(row, layers, cycled, judged) for row in found)
    return Grid((*heads, *tail), lines, numbers=len(layers) + 6 + cycled)


def _point_line(row: Row, layers: Sequence[str], cycled: bool, judged: bool) -> tuple[str, ...]:
    return (
        row.name,
        row.parameter,
        f"{row.reduction:.2f}",
        *(f"{row.layers[name]:.2f}" if name in row.layers else "–" for name in layers),
        f"{row.before:.2f}",
        f"{row.after:.2f}",
        *(["–" if row.cycled is None else f"{row.cycled:.2f}"] if cycled else []),
        "–" if row.difference is None else f"{row.difference:+.2f}",
        str(row.rounds),
        str(row.seed),
        *([row.accuracy_name or "–"] if judged else []),
        row.note,
    )


def rounds_grid(result: ExperimentResult) -> Grid:
    """Return a line for every round of every point, in the result's own order."""
    heads = ("method", "α or units kept", "seed", "round")
    lines = tuple(
        (
            result.title_of(point.method),
            parameter(point),
            str(point.seed),
            str(step.round),
            f"{100 * step.reduction:.2f}",
            f"{percent(accuracy(step.before)):.2f}",
            f"{percent(accuracy(step.after)):.2f}",
            "not finite" if step.after.loss is None else f"{step.after.loss:.4f}",
            f"{step.iterations:,}",
            f"{step.seconds:.1f}",
        )
        for point in result.points
        for step in point.rounds
    )
    tail = ("all FC %", "before %", "after %", "loss", "iterations", "seconds")
    return Grid((*heads, *tail), lines, numbers=8)


def claims_grid(judged: Iterable[Judged]) -> Grid:
    """Return a line for every claim: ours beside what the paper leads one to expect."""
    return Grid(
        ("claim", "verdict", "paper", "ours", "rule"),
        tuple(
            (entry.claim.text, entry.verdict, entry.claim.paper, entry.ours, entry.rule)
            for entry in judged
        ),
        numbers=0,
    )


def units_grid(result: ExperimentResult) -> Grid:
    """Return unit pruning against the connection curve at the same reduction."""
    return Grid(
        ("kept units", "connection value is", "all FC %", "units %", "connections %", "difference"),
        tuple(
            (
                row.parameter,
                f"{'interpolated between' if row.interpolated else 'measured at'} {row.source}",
                f"{row.reduction:.2f}",
                f"{row.units:.2f}",
                f"{row.connections:.2f}",
                f"{row.units - row.connections:+.2f}",
            )
            for row in compare_units(result)
        ),
        numbers=4,
    )


def shapes_grid(result: ExperimentResult) -> Grid:
    """Return small models against unit pruning at the same shape."""
    return Grid(
        ("kept units", "values are", "all FC %", "units %", "small model %", "difference"),
        tuple(
            (
                row.parameter,
                "measured",
                f"{row.reduction:.2f}",
                f"{row.units:.2f}",
                f"{row.small:.2f}",
                f"{row.difference:+.2f}",
            )
            for row in compare_shapes(result)
        ),
        numbers=4,
    )


PRESETS_NOTE = (
    "kept up to: reduction by connections at a loss of at most 0.5 points; held: claims reproduced"
)


def presets_grid(results: Sequence[ExperimentResult]) -> Grid:
    """Return a line for each result whose experiment has several: which reading gives what."""
    counts = Counter(result.experiment for result in results)
    shown = [result for result in results if counts[result.experiment] > 1]
    judges = [accuracy_name(result) for result in shown]
    lines = tuple(map(_preset_line, shown))
    heads = ("preset", "reading", "baseline %", "least α", "its all FC %", "kept up to %", "held")
    if any(judges):
        lines = tuple((*line, name or "–") for line, name in zip(lines, judges, strict=True))
    return Grid((*heads, *(["accuracy in"] if any(judges) else [])), lines, numbers=5)


def _preset_line(result: ExperimentResult) -> tuple[str, ...]:
    baseline = baseline_of(result)
    first = next(iter(result.select("connections")), None)
    kept = kept_up_to(result)
    verdicts = [entry.verdict for entry in judge(result)]
    return (
        f"{result.title}, {result.preset}",
        str(result.settings.get("reading") or "–"),
        "–" if baseline is None else f"{percent(papers_accuracy(baseline)):.2f}",
        "–" if first is None or first.alpha is None else f"{first.alpha:g}",
        "–" if first is None else f"{percent(first.reduction):.2f}",
        "–" if kept is None else f"{percent(kept):.2f}",
        f"{verdicts.count('reproduced')} of {len(verdicts)}",
    )


def sizes_grid(result: ExperimentResult) -> Grid:
    """Return what every selected network costs, and what its seeds reached."""
    return Grid(
        ("method", "α or units kept", "accuracy %", "seeds %", *_COSTS),
        tuple(_size_line(row) for row in size_rows(result)),
        numbers=2 + len(_COSTS),
    )


_COSTS = ("parameters", "MACs", "MACs in Caffe", "caffemodel bytes", "sparse bytes")


def _size_line(row: SizeRow) -> tuple[str, ...]:
    cost = row.cost
    spread = f"{row.lowest:.2f} to {row.highest:.2f} ({row.seeds})" if row.seeds > 1 else "one"
    counts = (
        cost.parameters,
        cost.macs,
        cost.dense_macs,
        cost.dense_bytes,
        cost.sparse_bytes,
    )
    return (row.name, row.parameter, f"{row.accuracy:.2f}", spread, *(f"{n:,}" for n in counts))


def weights_grid(result: ExperimentResult) -> Grid:
    """Return table 2, 3 or 4: the weights of each layer, the paper's beside ours."""
    network = NETWORKS.get(result.experiment)
    if network is None or not result.points:
        return Grid((), (), 0)
    pruned = {papers_name(row.layer): row.weights for row in result.points[0].rounds[-1].layers}
    net = net_of(result)
    counts = None if net is None else layer_counts(net)
    ours = {papers_name(name): layer.weights for name, layer in (counts or {}).items()}
    ours |= pruned
    lines = [
        (
            layer.layer,
            "pruned" if layer.layer in network.fully_connected else "left alone",
            f"{layer.weights:,}",
            f"{ours[layer.layer]:,}" if layer.layer in ours else "–",
            f"{layer.share:.2f}",
        )
        for layer in network.layers
    ]
    total = ("all FC", "pruned", f"{network.fc_weights:,}", f"{sum(pruned.values()):,}", "–")
    heads = ("layer", "by both methods", "paper's weights", "our weights", "paper's share %")
    return Grid(heads, (*lines, total), numbers=3)


_OURS = {
    "LeNet-300-100": "lenet_300_100",
    "LeNet-5": "lenet",
    "AlexNet": "alexnet",
    "VGG-16": "vgg_16",
    "GoogLeNet": "googlenet",
    "ResNet-50": "resnet_50",
    "ResNet-152": "resnet_152",
    "SqueezeNet": "squeezenet_v1.0",
    "DeepSpeech": "deep_speech",
    "DeepSpeech-2": "deep_speech_2",
    "NeuralTalk": "neural_talk",
}
"""Folders in ``prototxt/``."""


@cache
def table_1_grid() -> Grid:
    """Return table 1: parameters as printed beside those of our prototxts, counted.

    Weights and biases of the net that is trained: GoogLeNet's has two heads more.
    """
    lines = []
    for row in TABLE_1:
        path = share_root() / "prototxt" / _OURS[row.network] / "deploy.prototxt"
        counted = count_file(path, StateWish(TRAIN))
        ours = counted.weights + counted.biases
        numbers = (f"{row.parameters:,.0f}", f"{ours:,}", f"{ours / row.parameters:.2f}")
        lines.append((row.network, row.data, *numbers))
    heads = ("network", "data", "paper", "our prototxt", "ours / paper's")
    return Grid(heads, tuple(lines), numbers=3)


def table_5_grid(result: ExperimentResult) -> Grid:
    """Return table 5 row by row: the paper's rates and accuracies, ours, and the verdict."""
    if result.experiment != "caffenet-oxford102":
        return Grid((), (), 0)
    names = ("fc6", "fc7", "fc8", "all")
    lines = tuple(
        (
            f"{row.paper.alpha:g}",
            row.verdict,
            *(
                f"{float(row.printed[name]):.2f} / {shown(row.ours, name)}"
                + ("" if row.predicted is None else f" / {shown(row.predicted, name)}")
                for name in names
            ),
            f"{row.paper.accuracy:.2f} / "
            + ("–" if row.accuracy is None else f"{float(row.accuracy):.2f}"),
            f"{float(row.papers_loss):.2f} / "
            + ("–" if row.loss is None else f"{float(row.loss):.2f}"),
        )
        for row in table_5(result)
    )
    heads = ("α", "verdict", *(f"{name} %" for name in names), "accuracy %", "points lost")
    return Grid(heads, lines, numbers=6)
