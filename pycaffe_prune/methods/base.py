"""What a method is: a way to shrink a net, and all that experiments, reports and commands know.

A method is one module: a `Method`, which is its table in an experiment's TOML file, and the stages
that it plans. `pycaffe_prune.methods.registry` finds it.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from pycaffe_prune.experiments.baselines import Baseline
from pycaffe_prune.experiments.result import MethodRecord, Prediction, Setting
from pycaffe_prune.experiments.settings import Name
from pycaffe_prune.experiments.stages import Context, Stage
from pycaffe_prune.formats.caffe_pb2 import NetParameter

__all__ = ["Bench", "Chain", "Method", "Retraining"]


@dataclass(frozen=True)
class Chain:
    """The stages that lead to one point, each of which needs the one before."""

    stages: tuple[Stage, ...]
    value: float | None = None
    """Of what the method varies (`Method.setting`); None: a number does not tell it."""
    units: tuple[tuple[str, int], ...] | None = None
    """Units of the layers that are smaller than before, where they are known from the start."""
    rivals: str = ""
    """Chains of a method with the same word here differ in their seeds alone. Where the experiment
    prunes the best initial training, the best of these is reported too, the others are kept beside.
    Empty: this chain has none."""
    note: str = ""
    """What is told of its point besides, where the method's settings leave two looking alike."""


@dataclass(frozen=True)
class Bench:
    """What methods plan with."""

    context: Context
    baselines: tuple[Baseline, ...]
    """The best of them is what is pruned; where each is, there is a bench for each."""
    net: NetParameter
    """The whole net, before anything is pruned."""
    planned: Mapping[str, tuple[Chain, ...]] = field(default_factory=dict)
    """The chains of the methods before this one, by what they are called."""

    @property
    def units(self) -> dict[str, int]:
        """Units of each InnerProduct layer of the whole net, in its order."""
        return {
            layer.name: layer.inner_product_param.num_output
            for layer in self.net.layer
            if layer.type == "InnerProduct"
        }


class Method(BaseModel):
    """A method with its settings: one ``[[methods]]`` table of an experiment's TOML file.

    A subclass is registered by its ``kind``, which it declares as
    ``kind: Literal["its-name"] = "its-name"``; its other fields are its settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: ClassVar[str]
    """As tables and figures call it."""
    setting: ClassVar[str]
    """What tells its points apart, in a word: ``alpha``, ``sparsity``."""
    source: ClassVar[str]
    """Who described it: a publication, or a section of the paper."""
    control: ClassVar[str | None] = "baseline"
    """The kind that its points are compared with."""
    engines: ClassVar[frozenset[str]] = frozenset({"caffe", "torch"})
    """Which engines can do its stages."""

    kind: str
    name: Name | None = None
    """Where an experiment has several tables of one kind: what this one is called."""

    @property
    def called(self) -> str:
        """What the experiment and its result call it."""
        return self.name or self.kind

    @property
    def record(self) -> MethodRecord:
        """What a result says of it."""
        title = self.title if self.name is None else f"{self.title} ({self.name})"
        return MethodRecord(
            name=self.called,
            kind=self.kind,
            title=title,
            setting=self.setting,
            source=self.source,
            control=self.control,
        )

    @abstractmethod
    def chains(self, bench: Bench) -> Sequence[Chain]:
        """Lay out the stages of every point; nothing is run or written.

        Raises:
            FormatError: The net is none that the method can be used on.
        """

    @abstractmethod
    def most_stages(self, others: Sequence["Method"]) -> int:
        """Return how many stages there are at most, ``others`` being the experiment's methods."""

    def check(self, layers: Sequence[str], others: Sequence["Method"]) -> None:
        """Refuse settings that do not go with the rest of the experiment.

        Args:
            layers: The experiment's fully connected layers.
            others: The methods of the tables before.

        Raises:
            ValueError: With a sentence that names the setting.
        """

    def tell(self, value: float | None, units: Mapping[str, int] | None) -> Setting:
        """Return how a point is told apart from the others of the method.

        Args:
            value: The chain's.
            units: Units that are left in the layers that lost some.
        """
        if value is None and units is not None:
            text = ", ".join(f"{layer} {kept}" for layer, kept in units.items())
        else:
            text = "" if value is None else f"{self.setting} = {value:g}"
        return Setting(name=self.setting, value=value, text=text)

    def foresee(self, bench: Bench, weights: Path) -> Prediction | None:  # noqa: ARG002  (for who can)
        """Return what can be foreseen from the unpruned network's ``weights`` alone, if anything.

        Raises:
            FormatError: A file is damaged.
            SurgeryError: The weights are not finite.
        """
        return None


class Retraining(Stage):
    """What is trained after pruning: its solver may be another one than the initial training's."""

    @property
    def _fingerprint(self) -> str:
        return self.context.retraining_fingerprint or self.context.fingerprint

    @property
    def _solver(self) -> Path:
        return self.context.retraining_solver or self.context.solver
