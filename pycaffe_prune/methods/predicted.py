"""Weights predicted from those of a few sampled inputs by a fixed dictionary (Denil 2013)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pycaffe_prune.engines.base import Engine, Observer
from pycaffe_prune.errors import DataError
from pycaffe_prune.experiments.baselines import Baseline, best
from pycaffe_prune.experiments.features.input_covariance import input_covariance
from pycaffe_prune.experiments.input_shapes import input_shapes
from pycaffe_prune.experiments.paths import StageFolder
from pycaffe_prune.experiments.settings import Different, Share
from pycaffe_prune.experiments.stages import Stage, StageOutput
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.methods.base import Bench, Chain, Method, Retraining
from pycaffe_prune.methods.low_rank import require_layers
from pycaffe_prune.methods.unit_points import images_of
from pycaffe_prune.pruning.counts import weight_counts
from pycaffe_prune.pruning.predicted_layers import (
    Kernel,
    covariance_kernel,
    drawn,
    place_kernel,
    predict_layers,
)

__all__ = ["Dictionary", "Predicted", "PredictedPoint"]

KernelName = Literal["squared-exponential", "covariance"]


class Predicted(Method):
    """Weights of most inputs predicted by a fixed dictionary; those of the sampled are learned."""

    title: ClassVar[str] = "predicted weights"
    setting: ClassVar[str] = "share"
    source: ClassVar[str] = "Denil et al. 2013"

    kind: Literal["predicted"] = "predicted"
    shares: Annotated[tuple[Share, ...], Different]
    """Of the layers' inputs whose weights are predicted, one a point."""
    layers: Annotated[tuple[str, ...], Different, Field(min_length=1)]
    """InnerProduct layers and Convolutions."""
    kernel: KernelName = "squared-exponential"
    """Over the places of pixels, or of the layer's inputs over training images."""
    scale: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    """Of the squared exponential, in pixels."""
    ridge: float = Field(default=0.001, gt=0, allow_inf_nan=False)
    """λ, in shares of the kernel's mean diagonal."""
    images: int = Field(default=10_000, gt=0, lt=1_000_000)
    """The first so many training images, for the covariance."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    """By which inputs are sampled."""
    iterations: int = Field(ge=0, lt=1 << 31)
    """Of training what is learned; 0: none."""

    def chains(self, bench: Bench) -> Sequence[Chain]:  # noqa: D102  (see Method)
        layers = require_layers(self.called, bench.net, self.layers)
        told = Dictionary(self.kernel, self.scale, self.ridge, self.images, self.seed)
        return [
            Chain(
                (
                    PredictedPoint(
                        bench.context, self.iterations, bench.baselines, layers, share, told
                    ),
                ),
                share,
            )
            for share in self.shares
        ]

    def most_stages(self, others: Sequence[Method]) -> int:  # noqa: ARG002, D102  (see Method)
        return len(self.shares)


@dataclass(frozen=True)
class Dictionary:
    """How weights are predicted; the fields are those of `Predicted`."""

    kernel: KernelName
    scale: float
    ridge: float
    images: int
    seed: int

    @property
    def settings(self) -> Mapping[str, object]:
        """What its outcome depends on (values that JSON holds)."""
        used = {"scale": self.scale} if self.kernel == "squared-exponential" else {}
        used |= {"images": self.images} if self.kernel == "covariance" else {}
        return {"kernel": self.kernel, "ridge": self.ridge, "seed": self.seed, **used}


@dataclass(frozen=True, eq=False)
class PredictedPoint(Retraining):
    """A dictionary put before each layer, and what is left to learn trained once."""

    baselines: tuple[Baseline, ...]
    layers: tuple[str, ...]
    share: float
    dictionary: Dictionary

    kind = "predicted"

    @property
    def inputs(self) -> tuple[Stage, ...]:  # noqa: D102  (see Stage)
        return self.baselines

    @property
    def settings(self) -> Mapping[str, object]:  # noqa: D102  (see Stage)
        told = self.dictionary.settings
        return {"predicted": self.layers, "share": self.share, **told}

    @property
    def label(self) -> str:  # noqa: D102  (see Stage)
        return f"predicted-{self.dictionary.kernel}-{self.share:g}"

    def work(self, folder: StageFolder, engine: Engine, observe: Observer) -> StageOutput:  # noqa: D102
        start = best(self.baselines)
        net = self.context.read_net()
        model = read_caffemodel(start.folder.training.final_weights)
        kernels = {name: self._kernel(net, model, name, engine) for name in self.layers}
        new_net, new, made = predict_layers(net, model, kernels, self.dictionary.ridge)
        write_prototxt(folder.net, new_net)
        write_caffemodel(folder.pruned, new)
        result = self._train(
            folder, engine, observe, start.seed, net=folder.net, weights=folder.pruned
        )
        kept = weight_counts(model, self.context.layers)
        # As its authors count: the dictionary follows from the seed. Sizes are the stock net's.
        kept |= {name: one.learned for name, one in made.items() if name in kept}
        return self._found(folder, observe, result, kept, None)

    def _kernel(self, net: NetParameter, model: Caffemodel, name: str, engine: Engine) -> Kernel:
        told, context = self.dictionary, self.context
        samples = drawn(net, model, name, self.share, told.seed)
        if told.kernel == "squared-exponential":
            return place_kernel(net, model, name, samples, told.scale, input_shapes(context))
        source = images_of(context, net)
        if told.images > source.count:
            raise DataError(f"{source.database}: holds {source.count} images, not {told.images}")
        found = input_covariance(
            net,
            context.net,
            model,
            name,
            samples,
            source,
            range(told.images),
            engine,
            trust=context.trust,
        )
        return covariance_kernel(name, samples, *found)
