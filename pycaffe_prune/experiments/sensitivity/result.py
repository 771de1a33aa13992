"""What a sensitivity analysis found (``sensitivity.json``): each layer's accuracy against rate."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.result import Machine, Score
from pycaffe_prune.formats.files import existing_file, write_text
from pycaffe_prune.pruning.budget import Quantity

__all__ = [
    "BudgetSuggestion",
    "LayerSize",
    "Measured",
    "PrunedLayer",
    "RatedLayer",
    "RatedNet",
    "SensitivityMethod",
    "SensitivityPoint",
    "SensitivityResult",
    "SensitivitySettings",
    "Suggestion",
    "read_sensitivity",
    "write_sensitivity",
]

SensitivityMethod = Literal["connections", "units"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LayerSize(_Model):
    """A layer that was pruned alone."""

    layer: str
    type: str
    size: int = Field(gt=0)
    """Its weights (connections) or its units or filters (units)."""


class SensitivitySettings(_Model):
    """What was asked: a folder holds the points of one such request."""

    net_sha256: str
    """Over the net with the sizes of its data sets."""
    weights_sha256: str
    method: SensitivityMethod
    criterion: str | None
    """Of the units; None for connections, which go by magnitude."""
    layers: tuple[LayerSize, ...] = Field(min_length=1)
    rates: tuple[float, ...] = Field(min_length=1)
    """Shares of a layer that are pruned, rising."""
    images: int = Field(gt=0)
    """Test images."""
    accuracy_name: str | None = None
    """The Accuracy layer (or the loss) whose answers are judged; None: written before it was
    named."""
    trusted: bool = False
    """Whether the net's layers might run code and write, as `--trust` lets them."""

    def differences(self, other: "SensitivitySettings") -> list[str]:
        """Name what ``other`` asks otherwise."""
        return [
            name.removesuffix("_sha256").removesuffix("_name")
            for name in type(self).model_fields
            if getattr(self, name) != getattr(other, name)
        ]


class SensitivityPoint(_Model):
    """The net with one layer pruned at one rate, not retrained."""

    layer: str
    rate: float
    """As asked; of several matrices (LSTM, RNN) each loses this share."""
    kept: int = Field(ge=0)
    """Weights or units left in the layer."""
    alpha: float | None
    """Connections: the threshold as a multiple of the layer's sigma; None for units, and where each
    of several matrices (LSTM, RNN) has another one."""
    score: Score


class PrunedLayer(_Model):
    """One layer of a net in which all chosen layers are pruned."""

    layer: str
    weights: int = Field(gt=0)
    kept: int = Field(ge=0)
    alpha: float


class Measured(_Model):
    """A net with all chosen layers pruned by |w| < alpha * sigma, not retrained, and its test."""

    layers: tuple[PrunedLayer, ...]
    score: Score

    @property
    def reduction(self) -> float:
        """Share of all weights of the chosen layers that is gone."""
        kept = sum(row.kept for row in self.layers)
        return 1 - kept / sum(row.weights for row in self.layers)


class Suggestion(_Model):
    """Rates per layer for one total reduction, beside one alpha for all layers."""

    total: float
    """As asked: share of all weights of the chosen layers."""
    predicted_drop: float
    """Of the accuracy, if what the layers lose alone added up."""
    suggested: Measured
    single: Measured
    """The paper's rule, one alpha, at the same total reduction."""


class RatedLayer(_Model):
    """One layer of a net in which all chosen layers are pruned at a rate each."""

    layer: str
    size: int = Field(gt=0)
    """Its weights or units."""
    kept: int = Field(ge=0)
    rate: float = Field(ge=0, lt=1)


class RatedNet(_Model):
    """A net with all chosen layers pruned at their rates, not retrained, and its test."""

    layers: tuple[RatedLayer, ...]
    amount: int
    """What is left of the whole net, in what the budget counts."""
    score: Score


class BudgetSuggestion(_Model):
    """Rates per layer under one budget, beside one rate for all layers."""

    quantity: Quantity
    """What is counted: of connections weights that are not zero (bytes: the sparse form), of units
    the smaller dense net (bytes: its caffemodel)."""
    budget: int
    """The most that may be left."""
    whole: int
    """What the net has without pruning, dense."""
    predicted_drop: float
    """Of the accuracy, if what the layers lose alone added up."""
    suggested: RatedNet
    single: RatedNet
    """The lowest rate for all layers that is within the budget."""


class SensitivityResult(_Model):
    """A sensitivity analysis: settings, points, and where it ran."""

    schema_version: Literal[1] = 1
    title: str
    """The net's name."""
    data: str
    """Name of the data set."""
    is_sample: bool
    """True for the small bundled sample: then the numbers say nothing about the real data set."""
    engine: str
    versions: dict[str, str]
    machine: Machine
    settings: SensitivitySettings
    baseline: Score
    """Without pruning."""
    points: tuple[SensitivityPoint, ...]
    """In the order of the settings' layers and rates; not all of them while it is measured."""
    suggestion: Suggestion | None = None
    budget_suggestion: BudgetSuggestion | None = None

    @property
    def accuracy_name(self) -> str | None:
        """The layer whose answers were judged; None: written before it was named."""
        return self.settings.accuracy_name

    def named(self, accuracy_name: str) -> "SensitivityResult":
        """Return the result with the name of the layer that was judged."""
        settings = self.settings.model_copy(update={"accuracy_name": accuracy_name})
        return self.model_copy(update={"settings": settings})

    def curve(self, layer: str) -> list[SensitivityPoint]:
        """Return the points of one layer by rising rate."""
        return [point for point in self.points if point.layer == layer]


def read_sensitivity(path: Path) -> SensitivityResult:
    """Read a ``sensitivity.json``.

    Raises:
        FormatError: The file is missing, damaged, or of another schema version.
    """
    what = "a sensitivity.json"
    existing_file(path, what)
    try:
        return SensitivityResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise FormatError(f"{path}: {where}: {problem['msg']}; {what} is needed") from error


def write_sensitivity(path: Path, result: SensitivityResult) -> None:
    """Write ``sensitivity.json`` atomically."""
    write_text(path, result.model_dump_json(indent=1) + "\n")
