"""How the masked InnerProducts of a run are computed: the fastest way, measured here once.

Ways differ in the order in which they add up, so in rounding. What was measured is therefore kept:
in the run's folder, for the run that goes on from a snapshot, and in the cache folder, for a run
that begins as another one did.
"""

import hashlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from pycaffe_prune.cache import cache_root
from pycaffe_prune.engines.torch.build import Step
from pycaffe_prune.engines.torch.layers.inner_product import InnerProduct
from pycaffe_prune.engines.torch.layers.kept_products import (
    KeptProduct,
    LiveProduct,
    SparseProduct,
)
from pycaffe_prune.engines.torch.net import Net
from pycaffe_prune.engines.torch.updates import ParamGroup, make_update
from pycaffe_prune.errors import EngineError
from pycaffe_prune.formats.caffe_pb2 import SolverParameter
from pycaffe_prune.formats.caffemodel import BlobKey
from pycaffe_prune.formats.files import write_text
from pycaffe_prune.formats.mask import Mask

__all__ = [
    "WAYS",
    "Product",
    "kept_layers",
    "maskable",
    "measured",
    "read_products",
    "write_products",
]

Way = Literal["dense", "live", "sparse"]
WAYS: Mapping[Way, type[KeptProduct]] = {"live": LiveProduct, "sparse": SparseProduct}
"""What takes the place of an InnerProduct, but where dense is the way."""

_TOLD: Mapping[Way, str] = {
    "dense": "a dense product under the mask",
    "live": "a dense product of the units and inputs that are not dead",
    "sparse": "a sparse product",
}
_LEAST = 1 << 14  # weights: in a smaller blob there is nothing to be gained
_WINS = 0.95  # of the dense product's time: what is hardly faster is not worth other rounding
_SECONDS, _MOST_TURNS = 0.05, 9  # spent on a layer; turns of all ways


class Product(BaseModel):
    """How one layer is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: str
    way: Way
    milliseconds: dict[Way, float]
    """Of each way, for an iteration of this layer: both passes and the update."""

    @property
    def told(self) -> str:
        """Layer, way and times, for a sentence."""
        times = ", ".join(f"{way} {spent:.3f}" for way, spent in self.milliseconds.items())
        return f"layer '{self.layer}' is computed by {_TOLD[self.way]} (ms: {times})"


_PRODUCTS = TypeAdapter(tuple[Product, ...])


def read_products(path: Path) -> tuple[Product, ...]:
    """Read how a run's layers are computed.

    Raises:
        EngineError: The file is damaged.
    """
    try:
        return _PRODUCTS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise EngineError(
            f"{path}: does not say how layers are computed; it is damaged, begin the run anew"
        ) from error


def write_products(path: Path, products: Sequence[Product]) -> None:
    """Write how a run's layers are computed, whole or not at all.

    Raises:
        PruneError: The folder cannot be written to or the disk is full.
    """
    write_text(path, _PRODUCTS.dump_json(tuple(products), indent=1).decode() + "\n")


def maskable(net: Net) -> dict[BlobKey, Step]:
    """Return the layers whose weights may be left out where they are pruned, by these weights.

    They are InnerProducts without ``transpose``, of a weight that no other layer has, that take
    part in the backward pass, and whose bottoms keep their shape; on a CPU.
    """
    if net.device.type != "cpu":
        return {}
    owned = [key for step in net.steps for key in step.keys]
    return {
        step.keys[0]: step
        for step in net.steps
        if type(step.layer) is InnerProduct
        and step.flow.trains
        and not step.layer.param.inner_product_param.transpose
        and step.keys[0][0] == step.layer.param.name
        and owned.count(step.keys[0]) == 1
        and not net.varies(step)
    }


def kept_layers(net: Net, bits: Tensor, ways: Mapping[BlobKey, Way]) -> dict[BlobKey, KeptProduct]:
    """Return what takes the place of each layer that is not to be computed densely.

    Args:
        net: The net.
        bits: As `Masks.bits`.
        ways: By weights; those that `maskable` does not return are passed over.
    """
    steps = maskable(net)
    return {
        key: WAYS[way](steps[key].layer.setup, _mask(net, bits, key))
        for key, way in ways.items()
        if way in WAYS and key in steps
    }


def _mask(net: Net, bits: Tensor, key: BlobKey) -> Mask:
    return (net.parameters.view(bits, key) != 0).numpy()


def measured(param: SolverParameter, net: Net, bits: Tensor) -> tuple[Product, ...]:
    """Measure each way of computing each masked layer; what was measured here before is noted.

    Args:
        param: The solver, whose update counts.
        net: The net.
        bits: As `Masks.bits`.

    Returns:
        The fastest way of each layer that `maskable` returns, is large enough to gain something,
        and has pruned weights; one that is hardly faster than the dense way is not taken.
    """
    notes, found = _Notes(cache_root() / "products.jsonl"), list[Product]()
    turned = {step.keys[0]: before.keys[0] for before, step in pairwise(_with_blobs(net))}
    for key, step in maskable(net).items():
        mask = _mask(net, bits, key)
        if mask.size < _LEAST or mask.all():
            continue
        kept = {(product.layer, 0) for product in found if product.way in WAYS}
        case = _Case(param, step, mask, inputs_first=turned.get(key) in kept)
        times = notes.times(case.name) or notes.note(case.name, case.milliseconds())
        fastest = min(times, key=times.__getitem__)
        way = fastest if times[fastest] <= _WINS * times["dense"] else "dense"
        found.append(Product(layer=key[0], way=way, milliseconds=times))
    return tuple(found)


def _with_blobs(net: Net) -> list[Step]:
    return [step for step in net.steps if step.keys]


class _Case:
    """A masked layer by itself, on values drawn at random.

    Args:
        param: The solver.
        step: The layer's.
        mask: units x inputs.
        inputs_first: Whether the layer before leaves what this one reads input by input.
    """

    def __init__(
        self, param: SolverParameter, step: Step, mask: Mask, *, inputs_first: bool
    ) -> None:
        self._param, self._step, self._mask = param, step, mask
        self._inputs_first = inputs_first

    @property
    def name(self) -> str:
        """A checksum of all that the times depend on."""
        layer = self._step.layer
        told = [
            layer.param.inner_product_param.SerializeToString(deterministic=True).hex(),
            str((layer.setup.bottoms, self._step.flow.propagate, self._inputs_first)),
            f"{self._param.type} {torch.get_num_threads()} {torch.__version__}",
            f"{platform.node()} {torch.backends.cpu.get_cpu_capability()}",
            hashlib.sha256(self._mask.tobytes()).hexdigest(),
        ]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def milliseconds(self) -> dict[Way, float]:
        """The least time of each way; all take turns."""
        runs = {way: self._iteration(way) for way in ("dense", *WAYS)}
        for run in runs.values():
            run()  # the first one allocates
        least = dict.fromkeys(runs, float("inf"))
        begun = time.perf_counter()
        for turn in range(_MOST_TURNS):
            if turn > 1 and time.perf_counter() - begun > _SECONDS:
                break
            for way, run in runs.items():
                start = time.perf_counter()
                run()
                least[way] = min(least[way], time.perf_counter() - start)
        return {way: round(1000 * seconds, 4) for way, seconds in least.items()}

    def _iteration(self, way: Way) -> Callable[[], None]:
        """Both passes and the update, at a rate of 0: values stay what they are."""
        layer, mask, propagate = self._step.layer, self._mask, self._step.flow.propagate
        held = np.ones_like(mask)
        if way in WAYS:
            layer = WAYS[way](layer.setup, mask)
            held = layer.places
        draw = partial(torch.rand, generator=torch.Generator().manual_seed(0))
        bottom, top_diff = draw(layer.setup.bottoms[0]), draw(layer.setup.tops[0])
        if self._inputs_first and way in WAYS:
            axes = tuple(range(bottom.dim()))
            bottom = draw(bottom.shape[::-1]).permute(axes[::-1])
        weight, bias = draw(int(held.sum())), draw(len(mask))
        diff, bias_diff = torch.zeros_like(weight), torch.zeros_like(bias)
        update = make_update(self._param, [ParamGroup(0, len(weight), 1, 1)], weight, diff)
        update.keep(torch.from_numpy(mask[held]).int().neg_())
        shape = (-1,) if way in WAYS else mask.shape
        has_bias = layer.param.inner_product_param.bias_term
        params = [weight.view(shape), bias][: 1 + has_bias]
        diffs = [diff.view(shape), bias_diff][: 1 + has_bias]
        rate = torch.zeros(())

        def run() -> None:
            _, saved = layer.forward_saving([bottom], params)
            layer.backward(saved, [top_diff], propagate, diffs)
            update.apply(rate)

        return torch.no_grad()(run)


class _Notes:
    """What was measured on this machine before: a file of one JSON object a line.

    Of two lines on one case the first counts, so that all runs go by the same.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def times(self, name: str) -> dict[Way, float] | None:
        """Milliseconds by way; None where nothing is noted."""
        with suppress(OSError):  # not there yet, say
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValidationError):  # a line that a full disk cut off
                    note = _Note.model_validate_json(line)
                    if note.case == name:
                        return note.milliseconds
        return None

    def note(self, name: str, milliseconds: dict[Way, float]) -> dict[Way, float]:
        """Note what was measured; return what is noted now, which may have come in between."""
        line = "\n" + _Note(case=name, milliseconds=milliseconds).model_dump_json()
        with suppress(OSError):  # what cannot be noted is measured again
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(
                    line
                )  # at once: lines of several processes do not mix; one cut off ends here
        return self.times(name) or milliseconds


class _Note(BaseModel):
    case: str
    milliseconds: dict[Way, float]
