"""Points of another method, trained with the whole net for a teacher (Hinton et al. 2015)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.engines.distillation import TeacherWish
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.result import Setting
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method

__all__ = ["Distilled", "TaughtStage"]


class Distilled(Method):
    """The last training of each point of another method, with the whole net for a teacher.

    Whatever that method's nets are: small dense, hashed, pruned (docs/distillation.md).
    """

    title: ClassVar[str] = "distilled"
    setting: ClassVar[str] = "student"
    source: ClassVar[str] = "Hinton, Vinyals and Dean 2015 (1503.02531)"
    engines: ClassVar[frozenset[str]] = frozenset({"torch"})

    kind: Literal["distilled"] = "distilled"
    of: str
    """The method whose points are the students; its table comes before."""
    temperature: float = Field(4.0, gt=0, allow_inf_nan=False)
    mix: float = Field(0.5, ge=0, le=1)
    """Share of the teacher in the loss."""

    def check(self, layers: Sequence[str], others: Sequence[Method]) -> None:  # noqa: ARG002, D102
        if self.of not in (known := [method.called for method in others]):
            raise ValueError(
                f"of: no method before it is called '{self.of}'; there are: {', '.join(known)}"
            )

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        return [self._taught(bench, chain) for chain in bench.planned[self.of]]

    def _taught(self, bench: Bench, chain: Chain) -> Chain:
        *before, last = chain.stages
        stage = TaughtStage(
            last.context, last.iterations, last, bench.baselines, self.temperature, self.mix
        )
        return replace(chain, stages=(*before, stage))

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: D102  (see Method)
        return sum(
            other.most_stages(others[:place])
            for place, other in enumerate(others)
            if other.called == self.of
        )

    def tell(self, value: float | None, units: Mapping[str, int] | None) -> Setting:
        """Return what tells the student apart."""
        found = super().tell(value, units)
        text = f"{self.of} {value:g}" if value is not None else f"{self.of} {found.text}"
        return found.model_copy(update={"text": text})


@dataclass(frozen=True, eq=False)
class TaughtStage(Stage):
    """A stage of another method, whose training has a teacher: the best baseline."""

    student: Stage
    baselines: tuple[Baseline, ...]
    temperature: float
    mix: float

    kind = "distilled"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return tuple(dict.fromkeys((*self.student.inputs, *self.baselines)))

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {
            "student": self.student.key,
            "temperature": self.temperature,
            "mix": self.mix,
        }

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"{self.student.label}-taught"

    @property
    def files(self) -> tuple[Path, ...]:  # noqa: D102  (see Stage)
        theirs = self.student.folder.path
        return tuple(self.folder.path / path.relative_to(theirs) for path in self.student.files)

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        net, weights = folder.path / "teacher.prototxt", best(self.baselines).folder.training
        write_prototxt(net, self.context.read_net())
        teacher = TeacherWish(net, weights.final_weights, self.temperature, self.mix)
        return replace(self.student, teacher=teacher).work(folder, engine, observe)
