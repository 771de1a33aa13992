"""The result of an experiment (``result.json``): every point with all that led to it."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.migration import as_schema_2
from pycaffe_prune.formats.files import existing_file, write_text
from pycaffe_prune.formats.right_answers import fault_of_answers
from pycaffe_prune.pruning.sizes import ModelSizes

__all__ = [
    "DataSet",
    "Execution",
    "ExperimentResult",
    "LayerRate",
    "Machine",
    "MethodRecord",
    "Point",
    "PredictedRates",
    "Prediction",
    "PretrainingRecord",
    "Round",
    "Score",
    "Setting",
    "Speed",
    "read_result",
    "result_path",
    "write_result",
]

_Count = Annotated[int, Field(ge=0, lt=1 << 63)]
_Some = Annotated[int, Field(gt=0, lt=1 << 63)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Seconds = Annotated[float, Field(ge=0, lt=1e12)]
_Key = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_MOST_BYTES = 1 << 28


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class LayerRate(_Model):
    """Weights of one fully connected layer, before pruning and after it (biases left out)."""

    layer: str
    weights: _Some
    kept: _Count
    reduction: _Share
    """1 - kept / weights."""

    @model_validator(mode="after")
    def _kept_of_weights(self) -> Self:
        if self.kept > self.weights:
            raise ValueError(f"{self.kept} of {self.weights} weights cannot be kept")
        return self


class Score(_Model):
    """A test over exactly ``images`` images."""

    accuracy_name: str | None = None
    """The Accuracy layer (or the loss) whose answers were judged; None: written before it was
    named."""
    accuracy: _Share
    """Share of the labels that count, 0 to 1."""
    correct: _Count
    images: _Some
    counted: _Count | None = None
    """Labels that count: one for each image or pixel, ignored ones left out; None: one for each
    image."""
    loss: float | None
    """Mean of the same head's loss; None when a score was not finite, or there is no loss."""
    finite: bool
    cycled: _Share | None = None
    """The accuracy as Caffe's own test gives it where ``test_iter`` batches are more images than
    there are: from the first one on, round and round (the paper: 6,200 of 1,020). None: they are
    not more."""
    cycled_images: _Some | None = None
    """Images in that test; ``cycled * cycled_images`` were right."""
    right_answers: str | None = None
    """Which images were answered right (`formats.right_answers`), of the test after a training
    only. None: not known, as in results of older versions, or some image has not just one label."""

    @model_validator(mode="after")
    def _right_of_counted(self) -> Self:
        counted = self.images if self.counted is None else self.counted
        if self.correct > counted:
            raise ValueError(f"{self.correct} of {counted} labels cannot be right")
        if self.right_answers is not None:
            fault = fault_of_answers(self.right_answers, self.images, self.correct)
            if fault:
                raise ValueError(fault)
        return self

    @property
    def share(self) -> Fraction:
        """The accuracy, exactly."""
        return Fraction(self.correct, (self.images if self.counted is None else self.counted) or 1)


class Round(_Model):
    """One set of the paper: prune, then train. Training from scratch is one round as well."""

    round: _Some
    """Counted from 1."""
    layers: tuple[LayerRate, ...] = Field(min_length=1)
    """The fully connected layers, in the net's order, counted after this round's pruning."""
    reduction: _Share
    """Over all fully connected layers: 1 - kept weights / weights."""
    before: Score
    """Before this round's training (after its pruning)."""
    after: Score
    """After this round's training."""
    iterations: _Count
    images: _Count | None = None
    """Training images that these were, each counted as often as it came; None: written before they
    were counted."""
    seconds: _Seconds
    """Wall time of the training; one of a pack takes as long as its pack."""


class Setting(_Model):
    """What tells a point apart from the others of its method."""

    name: str
    """What it is, in a word, such as ``alpha`` or ``ratio``; the same for all of a method."""
    value: float | None = None
    """None: a number does not tell it."""
    text: str = ""
    """As tables show it; empty: nothing but the seed tells the points apart."""

    def noted(self, note: str) -> "Setting":
        """Return the setting with a note behind its text; an empty one changes nothing."""
        return self.model_copy(update={"text": f"{self.text}, {note}"}) if note else self


class MethodRecord(_Model):
    """A method as its module describes it (`pycaffe_prune.methods`)."""

    name: str
    """What points call it."""
    kind: str
    """The module's word for it."""
    title: str
    """As tables and figures call it."""
    setting: str
    """The name of its points' setting."""
    source: str
    """Who described it."""
    control: str | None = None
    """The kind that its points are compared with."""


class Speed(_Model):
    """How long the real Caffe takes for a point's net without its dead units (``--measure``)."""

    one: _Seconds
    """Milliseconds of one thread for one image alone."""
    each: _Seconds
    """The same for each image of a batch."""
    batch: _Some
    cpu: str
    """Where it was measured."""


class Point(_Model):
    """One pruned (or plain) network, through all its rounds; its accuracy is the last round's."""

    method: str
    """A name in the result's ``methods``."""
    setting: Setting
    units: dict[str, Annotated[int, Field(gt=0, lt=1 << 31)]] | None = None
    """Units kept in the layers that lost some; None: none did."""
    sizes: ModelSizes | None = None
    """Of the last round's net, with its dead units and without; None: written before they were
    measured."""
    speed: Speed | None = None
    """None: not measured."""
    seed: _Count
    rounds: tuple[Round, ...] = Field(min_length=1)
    selected: bool = True
    """False for runs of which a better one with another seed is reported (baseline, small), which
    experiments that prune each initial training have not."""
    key: _Key | None = None
    """Content key of the stage that the net came from: over data, nets, solvers and all settings
    of this stage and those before it. None: written before it was told."""
    taken_from: str | None = None
    """The preset of the result that already had the point (`--known`); None: trained for this
    one."""

    @property
    def alpha(self) -> float | None:
        """The multiple of sigma, where that is what tells the point apart."""
        return self.setting.value if self.setting.name == "alpha" else None

    @property
    def accuracy(self) -> float:
        """Share of the test images, 0 to 1, after the last round."""
        return self.rounds[-1].after.accuracy

    @property
    def reduction(self) -> float:
        """Reduction over all fully connected layers after the last round, 0 to 1."""
        return self.rounds[-1].reduction


class PredictedRates(_Model):
    """What one alpha is foreseen to remove."""

    alpha: float
    layers: tuple[LayerRate, ...]
    """The fully connected layers, in the net's order."""
    reduction: float
    """Over all of them: 1 - kept weights / weights."""


class Prediction(_Model):
    """Reduction rates foreseen from the unpruned network alone, before any retraining.

    Thresholds stay fixed through the rounds while weight decay shrinks what nothing else moves; so
    at the last pruning alpha removes what alpha / shrink would remove of the unpruned network.
    """

    shrink: float
    """Factor by which weight decay alone shrinks a weight up to the last pruning, 0 to 1."""
    rates: tuple[PredictedRates, ...]
    """By rising alpha."""


class DataSet(_Model):
    """What the experiment was trained and tested on."""

    name: str
    is_sample: bool
    """True for the small bundled sample: then the numbers say nothing about the paper's."""
    train_images: _Count
    test_images: _Count
    train_sha256: str
    test_sha256: str


class PretrainingRecord(_Model):
    """A training on other data, whose weights an initial training began with."""

    seed: _Count
    """Also of the initial training."""
    data: DataSet
    iterations: _Count
    after: Score
    """On its own test images."""
    seconds: _Seconds


class Machine(_Model):
    """Where it ran."""

    cpu: str
    cores: int
    system: str


class Execution(_Model):
    """How the engine was told to work."""

    device: str = "cpu"
    """``cpu`` or ``cuda[:N]``."""
    threads: int = 1
    """Of each stage."""
    tf32: bool = False
    """Whether factors were rounded to TF32: then the engine is not as exact as Caffe."""
    pack: int = 1
    """Stages that shared one process and its device."""
    trusted: bool = False
    """Whether the net's layers might run code and write, as `--trust` lets them."""


class ExperimentResult(_Model):
    """A whole experiment: settings, points and where it ran."""

    schema_version: Literal[2] = 2
    experiment: str
    """Name as in the command line, e.g. ``lenet-300-100``."""
    preset: str
    title: str
    """Name of the network as people write it, e.g. ``LeNet-300-100``."""
    finished: str
    """Date and time in UTC, ISO 8601."""
    engine: str
    execution: Execution = Execution()
    versions: dict[str, str]
    machine: Machine
    jobs: _Count
    """Stages that ran side by side."""
    wall_seconds: _Seconds
    """The times of all stages added up. Each stage of a pack has the time of its whole pack."""
    data: DataSet
    settings: dict[str, Any]
    """The experiment's TOML file with its preset, all defaults filled in."""
    pretrained_sha256: str | None = None
    """Checksum of the file of weights that the initial training began with; None: random values."""
    pretraining: tuple[PretrainingRecord, ...] = ()
    """The trainings on other data that the initial trainings began with, one a seed; empty: none
    did."""
    methods: tuple[MethodRecord, ...] = ()
    """Those of the points, in the order of tables, the baseline first."""
    points: tuple[Point, ...]
    prediction: Prediction | None = None
    """None: sigma is not taken once from the unpruned network, or its weights are not there."""

    @model_validator(mode="before")
    @classmethod
    def _of_schema_1(cls, fields: Any) -> Any:
        old = isinstance(fields, dict) and fields.get("schema_version") == 1
        return as_schema_2(fields) if old else fields

    @model_validator(mode="after")
    def _of_its_methods(self) -> Self:
        known = {record.name for record in self.methods}
        if unknown := [point.method for point in self.points if point.method not in known]:
            raise ValueError(f"a point is of the method '{unknown[0]}', which is not described")
        return self

    @field_validator("settings")
    @classmethod
    def _of_json(cls, settings: dict[str, Any]) -> dict[str, Any]:
        json.dumps(settings, allow_nan=False)  # raises a ValueError
        return settings

    def title_of(self, method: str) -> str:
        """Return a method's title; its name where it is not described."""
        return next((row.title for row in self.methods if row.name == method), method)

    def select(self, method: str) -> list[Point]:
        """Return the selected points of a method by rising reduction."""
        found = [point for point in self.points if point.method == method and point.selected]
        return sorted(found, key=lambda point: point.reduction)

    @property
    def baseline(self) -> Point:
        """The unpruned network that was pruned: the best of the seeds; of several the first."""
        return self.select("baseline")[0]


def read_result(path: Path) -> ExperimentResult:
    """Read an experiment's ``result.json``.

    Raises:
        FormatError: The file is missing, damaged, or of another schema version.
    """
    if existing_file(path, "an experiment's result.json").stat().st_size > _MOST_BYTES:
        raise FormatError(f"{path}: is over {_MOST_BYTES:,} bytes, too long for a result")
    try:
        return ExperimentResult.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise FormatError(
            f"{path}: {where}: {problem['msg']}; an experiment's result.json is needed"
        ) from error


def result_path(run: Path) -> Path:
    """Return the result.json that is meant: the file itself, or the one in a folder."""
    return run / "result.json" if run.is_dir() else run


def write_result(path: Path, result: ExperimentResult) -> None:
    """Write ``result.json`` atomically."""
    write_text(path, result.model_dump_json(indent=1) + "\n")
