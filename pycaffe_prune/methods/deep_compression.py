"""Deep Compression (Han et al. 2016): prune, let weights share values, train the values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.engines.tying import Gradient, Tying
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.settings import MOST_ROUNDS, Different, Seed, Share
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import read_caffemodel, write_caffemodel
from pycaffe_prune.methods.base import Bench, Chain, Method, Retraining
from pycaffe_prune.methods.magnitude import Magnitude
from pycaffe_prune.methods.sparse import Scope
from pycaffe_prune.pruning.shared_layers import share_layers
from pycaffe_prune.pruning.shared_weights import MOST_BITS, Init
from pycaffe_prune.pruning.sharing import first_of_each, shared_blobs
from pycaffe_prune.pruning.weight_blobs import weights_of

__all__ = ["DeepCompression", "SharedValues"]

_Bits = Annotated[int, Field(ge=1, le=MOST_BITS)]
_Count = Annotated[int, Field(ge=0, lt=1 << 31)]


class DeepCompression(Method):
    """A pruned net whose weights share few values, which are trained (docs/sharing.md).

    It is pruned by magnitude here, or is what a point of another method left.
    """

    title: ClassVar[str] = "deep compression"
    setting: ClassVar[str] = "bits"
    source: ClassVar[str] = "Han et al. 2016 (1510.00149)"

    kind: Literal["deep-compression"] = "deep-compression"
    bits: Annotated[tuple[_Bits, ...], Different]
    """A point each: a layer's weights share at most 2^bits values."""
    own: Mapping[str, _Bits] = {}
    """Layers with bits of their own, the same at every point."""
    init: Init = "linear"
    seed: Seed = 0
    """Of the lot, for ``init = "random"``."""
    layers: tuple[str, ...] | None = None
    """Whose weights share values; without it the experiment's fully connected layers."""
    iterations: _Count
    """In which the shared values are trained; 0: they are tested as they are."""
    gradient: Gradient = "sum"
    """A shared value's, over its weights: the authors' sum, which needs a small rate
    (``retraining_solver``), or the mean, for which the rate of single weights serves."""
    of: str | None = None
    """The method whose pruned net it is; its table comes before."""
    at: float | None = None
    """Which of that method's points, by its setting's value; none: it has one."""
    sparsity: Share | None = None
    """Or pruned here, as `magnitude` does: the share of weights that is gone."""
    rounds: int = Field(default=1, gt=0, le=MOST_ROUNDS)
    scope: Scope = "layer"
    retraining: _Count = 0
    """Iterations after each round of pruning."""

    @model_validator(mode="after")
    def _one_way_to_prune(self) -> Self:
        if (self.of is None) == (self.sparsity is None):
            raise ValueError(
                "give either sparsity, or of: the method whose pruned net shares values"
            )
        given = self.model_fields_set & {"rounds", "scope", "retraining"}
        if self.of is not None and given:
            raise ValueError(f"{min(given)}: goes with sparsity; the net is {self.of}'s")
        if self.of is None and self.at is not None:
            raise ValueError("at: goes with of")
        return self

    @property
    def _pruning(self) -> Magnitude:
        if self.sparsity is None:
            raise TypeError("the net is another method's")
        return Magnitude(
            sparsities=(self.sparsity,),
            rounds=self.rounds,
            scope=self.scope,
            iterations=self.retraining,
        )

    def check(self, layers: Sequence[str], others: Sequence[Method]) -> None:  # noqa: D102
        known = self.layers or layers
        if unknown := [layer for layer in self.own if layer not in known]:
            raise ValueError(
                f"own: layer '{unknown[0]}' shares no values; there are: {', '.join(known)}"
            )
        called = [method.called for method in others]
        if self.of is not None and self.of not in called:
            raise ValueError(
                f"of: no method before it is called '{self.of}'; there are: {', '.join(called)}"
            )

    def chains(self, bench: Bench) -> Sequence[Chain]:
        """Lay out the stages of every point; nothing is run or written.

        Raises:
            FormatError: The other method has no such point, or several.
        """
        pruned = self._pruned(bench)
        return [
            Chain((*pruned.stages, self._stage(bench, pruned.stages[-1], bits)), float(bits))
            for bits in self.bits
        ]

    def _pruned(self, bench: Bench) -> Chain:
        if self.of is None:
            (chain,) = self._pruning.chains(bench)
            return chain
        chains = bench.planned[self.of]
        found = [chain for chain in chains if self.at is None or chain.value == self.at]
        if len(found) != 1:
            values = ", ".join(f"{chain.value:g}" for chain in chains if chain.value is not None)
            wanted = "" if self.at is None else f" at {self.at:g}"
            raise FormatError(
                f"{self.called}: at: {len(found)} points of {self.of} are meant{wanted}, not one; "
                f"there are: {values}"
            )
        return found[0]

    def _stage(self, bench: Bench, pruned: Stage, bits: int) -> "SharedValues":
        layers = self.layers or bench.context.layers
        each = tuple((layer, self.own.get(layer, bits)) for layer in layers)
        label = f"{self.called}-{bits}bits"
        return SharedValues(
            bench.context,
            self.iterations,
            bench.baselines,
            pruned,
            each,
            self.init,
            self.seed if self.init == "random" else 0,
            self.gradient,
            label,
        )

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: D102  (see Method)
        before = self._pruning.most_stages(others) if self.of is None else 0
        return before + len(self.bits)


@dataclass(frozen=True, eq=False)
class SharedValues(Retraining):
    """The weights of a pruned net share values, which are trained."""

    baselines: tuple[Baseline, ...]
    pruned: Stage
    bits: tuple[tuple[str, int], ...]
    """Of each layer."""
    init: Init
    seed: int
    gradient: Gradient
    told: str
    """What tells it from others, for its label."""

    kind = "shared-values"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return (*self.baselines, self.pruned)

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        told = {"bits": self.bits, "init": self.init, "seed": self.seed}
        return {**told, "gradient": self.gradient}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return self.told

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        model = read_caffemodel(self.pruned.folder.training.final_weights)
        net, bits = self.context.read_net(), dict(self.bits)
        types = {layer.name: layer.type for layer in net.layer}
        same = shared_blobs(net)
        keys = first_of_each(same, weights_of(bits, types, model))
        moved, _ = share_layers(
            model, {key: bits[key[0]] for key in keys}, same, self.init, self.seed
        )
        write_caffemodel(folder.pruned, moved)
        result = self._train(
            folder,
            engine,
            observe,
            best(self.baselines).seed,
            net=self._whole_net(folder),
            weights=folder.pruned,
            tying=Tying(blobs=tuple(keys), gradient=self.gradient),
        )
        kept = self.pruned.require_output().kept
        return self._found(folder, observe, result, kept, None)
