"""How the masked InnerProducts of a run are computed: the fastest way, measured here once.

Ways differ in the order in which they add up, so in rounding. What was measured is therefore kept:
in the run's folder, for the run that goes on from a snapshot, and in the cache folder, for a run
that begins as another one did.
"""

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from pycaffe_prune.cache import cache_root
from pycaffe_prune.engines.torch.build import Step
from pycaffe_prune.engines.torch.compaction import Compaction
from pycaffe_prune.engines.torch.layers.inner_product import InnerProduct
from pycaffe_prune.engines.torch.layers.kept_products import (
    KeptProduct,
    LiveProduct,
    SparseProduct,
)
from pycaffe_prune.engines.torch.net import Net
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
_WINS = 0.98  # of the dense way's time: what is hardly faster is not worth other rounding
_SECONDS, _MOST_TURNS = 0.05, 9  # spent on a layer; turns of all ways
_WRITING = frozenset({"HDF5Output"})
"""Layers whose passes leave something behind: nets with one are not measured, and stay dense."""


class Product(BaseModel):
    """How one layer is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: str
    way: Way
    milliseconds: dict[Way, float]
    """Of a whole iteration without its batch's coming, this layer computed in each way."""

    @property
    def told(self) -> str:
        """Layer, way and times, for a sentence."""
        times = ", ".join(f"{way} {spent:.3f}" for way, spent in self.milliseconds.items())
        return f"layer '{self.layer}' is computed by {_TOLD[self.way]} (ms an iteration: {times})"


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


def measured(param: SolverParameter, net: Net, bits: Tensor, forwards: int) -> tuple[Product, ...]:
    """Measure each way of computing each masked layer; what was measured here before is noted.

    Layer by layer the whole iteration is timed, the layers before computed as was found best: ways
    differ in what they leave to their neighbours, and to the cache. The net is used for it; its
    parameters stay, and afterwards it is where `Net.seek` brings it.

    Args:
        param: The solver, whose update counts.
        net: The net.
        bits: As `Masks.bits`.
        forwards: Forward passes of the net so far.

    Returns:
        The fastest way of each layer that `maskable` returns, is large enough to gain something,
        and has pruned weights; one that is hardly faster than the dense way is not taken.

    Raises:
        DataError: The data are damaged.
    """
    masks = {key: _mask(net, bits, key) for key in maskable(net)}
    keys = [key for key, mask in masks.items() if mask.size >= _LEAST and not mask.all()]
    if not keys or any(step.layer.param.type in _WRITING for step in net.steps):
        return ()
    notes = _Notes(cache_root() / "products.jsonl")
    case = _name(param, net, bits)
    found = notes.products(case)
    if not found:
        found = notes.note(case, _race(param, net, bits, keys))
        net.seek(forwards)
    return found


def _name(param: SolverParameter, net: Net, bits: Tensor) -> str:
    """A checksum of all that the times depend on."""
    told = [
        f"{platform.node()} {torch.backends.cpu.get_cpu_capability()} {torch.__version__}",
        f"{torch.get_num_threads()} {param.type} {param.iter_size} {param.clip_gradients}",
        hashlib.sha256(bits.numpy().tobytes()).hexdigest(),
    ]
    for step in net.steps:
        layer = step.layer.param.SerializeToString(deterministic=True).hex()
        told.append(f"{layer} {step.layer.setup.bottoms}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _race(
    param: SolverParameter, net: Net, bits: Tensor, keys: Sequence[BlobKey]
) -> tuple[Product, ...]:
    ways, found = dict[BlobKey, Way](), []
    net.fetch()
    for key in keys:
        trials = {way: _Trial(param, net, bits, {**ways, key: way}) for way in get_args(Way)}
        times = _least_times(trials)
        fastest = min(times, key=times.__getitem__)
        ways[key] = fastest if times[fastest] <= _WINS * times["dense"] else "dense"
        found.append(Product(layer=key[0], way=ways[key], milliseconds=times))
    return tuple(found)


def _least_times(trials: Mapping[Way, "_Trial"]) -> dict[Way, float]:
    """The least time of each, in milliseconds; all take turns.

    It is the processor's, of the thread that computes: other work on the machine must not decide.
    """
    least = dict.fromkeys(trials, float("inf"))
    for trial in trials.values():
        trial.seconds()  # the first one allocates
    begun = time.thread_time()
    for turn in range(_MOST_TURNS):
        if turn > 1 and time.thread_time() - begun > _SECONDS:
            break
        for way, trial in trials.items():
            least[way] = min(least[way], trial.seconds())
    return {way: round(1000 * seconds, 4) for way, seconds in least.items()}


class _Trial:
    """Iterations of a net on one batch, on copies of its blobs."""

    def __init__(
        self, param: SolverParameter, net: Net, bits: Tensor, ways: Mapping[BlobKey, Way]
    ) -> None:
        self._net, self._passes = net, param.iter_size
        self._compaction = Compaction(param, net, bits, kept_layers(net, bits, ways))
        self._data = net.parameters.data.clone()
        self._history = [net.parameters.zeros() for _ in self._compaction.update.history]
        self._rate = torch.zeros(())  # so that values stay what they are

    def seconds(self) -> float:
        """Run one, without what a batch takes to come."""
        with self._compaction.held(self._data, self._history):
            start = time.thread_time()
            for _ in range(self._passes):
                self._net.compute()
            self._compaction.update.apply(self._rate)
            return time.thread_time() - start


class _Notes:
    """What was measured on this machine before: a file of one JSON object a line.

    Of two lines on one case the first counts, so that all runs go by the same.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def products(self, case: str) -> tuple[Product, ...]:
        """What is noted of a case; nothing where nothing is."""
        with suppress(OSError):  # not there yet, say
            text = self._path.read_text(encoding="utf-8", errors="replace")
            for line in (line for line in text.splitlines() if case in line):
                with suppress(ValidationError):  # a line that a full disk cut off
                    return _Note.model_validate_json(line).products
        return ()

    def note(self, case: str, products: tuple[Product, ...]) -> tuple[Product, ...]:
        """Note what was measured; return what is noted now, which may have come in between."""
        line = "\n" + _Note(case=case, products=products).model_dump_json()
        with suppress(OSError):  # what cannot be noted is measured again
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)  # at once: lines of several processes do not mix
        return self.products(case) or products


class _Note(BaseModel):
    case: str
    products: tuple[Product, ...]
