"""HashedNets (Chen et al. 2015): nets whose weights are few values by a hash, from scratch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.engines.tying import Tying
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.settings import Different, Iterations, Seed
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.compressed.blobs import Hash
from pycaffe_prune.methods.base import Bench, Chain, Method
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.hashed import bucket_count, hash_weights, layer_seed

__all__ = ["Hashed", "HashedModel"]

_Compression = Annotated[float, Field(gt=0, le=1)]


class Hashed(Method):
    """Nets whose weights share few values by a hash of their places, trained from scratch.

    Biases are not hashed. What is trained is a stock Caffe model; stored compressed, a layer is the
    values of its buckets.
    """

    title: ClassVar[str] = "hashed net"
    setting: ClassVar[str] = "compression"
    source: ClassVar[str] = "Chen et al. 2015 (1504.04788)"
    control: ClassVar[str | None] = "small-dense"

    kind: Literal["hashed"] = "hashed"
    compressions: Annotated[tuple[_Compression, ...], Different]
    """A point each: buckets of a layer, as a share of its weights."""
    layers: Annotated[tuple[str, ...], Different] = ()
    """Whose weights; without it the experiment's fully connected layers."""
    seeds: Annotated[tuple[Seed, ...], Different] = Field(min_length=1)
    """Of fillers and hash."""
    iterations: Iterations

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        layers = self.layers or bench.context.layers
        return [
            Chain(
                (HashedModel(bench.context, self.iterations, layers, compression, seed),),
                compression,
                rivals=f"{compression:g}",
            )
            for compression in self.compressions
            for seed in self.seeds
        ]

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.compressions) * len(self.seeds)


@dataclass(frozen=True, eq=False)
class HashedModel(Stage):
    """One hashed net, trained from scratch."""

    layers: tuple[str, ...]
    compression: float
    seed: int

    kind = "hashed"

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        return {"hashed": self.layers, "compression": self.compression, "seed": self.seed}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"hashed-{self.compression:g}-seed{self.seed}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        net = self._whole_net(folder)
        _, begun = self._untrained(folder, engine, observe, self.seed, net=net)
        hashes = self._hashes(begun)
        write_caffemodel(folder.pruned, hash_weights(begun, hashes))
        tying = Tying(blobs=tuple(hashes), signed=True)
        result = self._train(
            folder, engine, observe, self.seed, net=net, weights=folder.pruned, tying=tying
        )
        trained = read_caffemodel(folder.training.final_weights)
        kept = weight_counts(trained, self.context.layers)
        return self._found(folder, observe, result, kept, None, hashes)

    def _hashes(self, model: Caffemodel) -> dict[BlobKey, Hash]:
        held = {layer.name: layer.blobs for layer in model.layers if layer.blobs}
        if unknown := [name for name in self.layers if name not in held]:
            raise FormatError(
                f"layer '{unknown[0]}' is to be hashed, and the net has no weights of it; those "
                f"that it has: {', '.join(held)}"
            )
        return {
            (name, 0): Hash(
                bucket_count(held[name][0].size, self.compression), layer_seed(self.seed, place)
            )
            for place, name in enumerate(self.layers)
        }
