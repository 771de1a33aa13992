"""One row per point of a result, in percent: what every table and figure is made from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pycaffe_prune.experiments.result import ExperimentResult, Point, Score
from pycaffe_prune.reports.once import once

__all__ = [
    "Row",
    "accuracy",
    "accuracy_name",
    "accuracy_title",
    "baseline_of",
    "papers_accuracy",
    "papers_name",
    "parameter",
    "percent",
    "reduction",
    "rows",
    "sample_warning",
    "taken_over",
]


def sample_warning(result: ExperimentResult) -> str | None:
    """Return the sentence that every output shows when the data is the bundled sample."""
    if not result.data.is_sample:
        return None
    return (
        f"SAMPLE DATA, NOT THE REAL DATA SET: trained on {result.data.train_images:,} "
        f"and tested on {result.data.test_images:,} images of '{result.data.name}'. "
        "These numbers say nothing about the paper's."
    )


def taken_over(result: ExperimentResult) -> str:
    """Return how many points come from which preset's result; empty where all were trained."""
    whose = Counter(point.taken_from for point in result.points if point.taken_from is not None)
    return ", ".join(f"{count} from the preset {preset}" for preset, count in whose.items())


def accuracy(score: Score) -> Fraction:
    """Return the exact share of images, so that thresholds turn where they should."""
    return score.share


def accuracy_name(*results: ExperimentResult) -> str | None:
    """Return the layer whose answers were judged, or all of them; None: not known of any."""
    scores = (step.after for result in results for point in result.points for step in point.rounds)
    names = dict.fromkeys(score.accuracy_name for score in scores if score.accuracy_name)
    return ", ".join(names) or None


def accuracy_title(name: str | None) -> str:
    """Return what stands at an axis of accuracies that are those of layer ``name``."""
    return "Accuracy (%)" if name is None else f"Accuracy in '{name}' (%)"


def papers_accuracy(point: Point) -> Fraction:
    """Return a point's share of right answers as the paper counted: images cycled, where they were.

    The paper tested the flowers with 124 batches of 50, 6,200 images that cycle through 1,020.
    """
    score = point.rounds[-1].after
    if score.cycled is None or score.cycled_images is None:
        return accuracy(score)
    return Fraction(round(score.cycled * score.cycled_images), score.cycled_images)


def reduction(point: Point) -> Fraction:
    """Return the exact reduction over all FC layers after the last round, 0 to 1."""
    weights = kept = 0
    for row in point.rounds[-1].layers:
        weights += row.weights
        kept += row.kept
    return Fraction(weights - kept, weights)


def papers_name(layer: str) -> str:
    """Return a layer's name in the paper's tables: CaffeNet's new classifier is fc8 there."""
    return "fc8" if layer.startswith("fc8") else layer


def percent(share: Fraction | float) -> float:
    """Return a share as %: the float nearest to it."""
    if isinstance(share, float):
        return float(share * 100)
    return 100 * share.numerator / share.denominator


def parameter(point: Point) -> str:
    """Return what tells a point apart from others of its method: alpha, kept units, or a dash."""
    return point.setting.text or "–"


def baseline_of(result: ExperimentResult) -> Point | None:
    """Return the unpruned network that was pruned; None when the result holds none."""
    return next(iter(result.select("baseline")), None)


@dataclass(frozen=True)
class Row:
    """A point as tables show it. Rates and accuracies in %, the difference in points."""

    method: str
    name: str
    """The method's title."""
    parameter: str
    seed: int
    rounds: int
    reduction: float
    """Over all FC layers."""
    layers: dict[str, float]
    """Reduction of each FC layer."""
    before: float
    """Accuracy before the last round's training."""
    after: float
    """Accuracy after it: the point's accuracy."""
    difference: float | None
    """Accuracy minus the baseline's; None without a baseline."""
    cycled: float | None
    """Accuracy over the test images cycled as the paper did; None where they were not."""
    accuracy_name: str | None
    """The layer whose answers were judged; None: not known."""
    selected: bool
    finite: bool
    """False when the last test met a loss that is not finite."""

    @property
    def note(self) -> str:
        """What sets the row apart, empty for most."""
        notes = [] if self.selected else ["another seed is better"]
        return "; ".join(notes if self.finite else [*notes, "loss not finite"])


@once
def rows(result: ExperimentResult) -> Sequence[Row]:
    """Return a row for every point: by method, then selected ones first, by rising reduction."""
    first = baseline_of(result)
    tops = {point.seed: point for point in reversed(result.select("baseline"))}
    order = [record.name for record in result.methods]
    points = sorted(
        [(point, reduction(point)) for point in result.points],
        key=lambda pair: (order.index(pair[0].method), pair[1], not pair[0].selected),
    )
    return [_row(result, point, rate, tops.get(point.seed, first)) for point, rate in points]


def _row(result: ExperimentResult, point: Point, rate: Fraction, baseline: Point | None) -> Row:
    top = None if baseline is None else accuracy(baseline.rounds[-1].after)
    last = point.rounds[-1]
    after = accuracy(last.after)
    return Row(
        method=point.method,
        name=result.title_of(point.method),
        parameter=parameter(point),
        seed=point.seed,
        rounds=len(point.rounds),
        reduction=percent(rate),
        layers={row.layer: 100 * (row.weights - row.kept) / row.weights for row in last.layers},
        before=percent(accuracy(last.before)),
        after=percent(after),
        difference=None if top is None else percent(after - top),
        cycled=None if last.after.cycled is None else percent(papers_accuracy(point)),
        accuracy_name=last.after.accuracy_name,
        selected=point.selected,
        finite=last.after.finite,
    )
