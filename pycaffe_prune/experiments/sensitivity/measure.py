"""Accuracy against pruning rate, one layer at a time, without retraining."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from filelock import FileLock, Timeout

from pycaffe_prune import __version__
from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.data_shapes import data_shapes
from pycaffe_prune.engines.prepare import prepare_evaluation
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FormatError, InterruptedRunError, PruneError
from pycaffe_prune.experiments.machine import this_machine
from pycaffe_prune.experiments.paths import SensitivityFolder
from pycaffe_prune.experiments.result import Score
from pycaffe_prune.experiments.sensitivity.result import (
    LayerSize,
    SensitivityMethod,
    SensitivityPoint,
    SensitivityResult,
    SensitivitySettings,
    read_sensitivity,
    write_sensitivity,
)
from pycaffe_prune.formats.caffe_pb2 import TEST, NetParameter
from pycaffe_prune.formats.caffemodel import BlobKey, Caffemodel, write_caffemodel
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.mask import Mask
from pycaffe_prune.formats.prototxt import read_net, refuse_carried
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.net.shapes import Shape
from pycaffe_prune.net.state_wish import OWN_STATE, StateWish, of_chosen_state, read_net_in_state
from pycaffe_prune.net.trust import refuse_untrusted
from pycaffe_prune.pruning.connections import apply_masks, prune_to_ratios, resulting_thresholds
from pycaffe_prune.pruning.counts import require_finite
from pycaffe_prune.pruning.criteria.connections import sigma_of
from pycaffe_prune.pruning.selection import connection_layers, select_layers
from pycaffe_prune.pruning.sharing import (
    first_of_each,
    masks_for_all,
    require_equal_blobs,
    shared_blobs,
)
from pycaffe_prune.pruning.units import (
    choose_units,
    mask_units,
    prunable_layers,
    unit_counts,
    units_together,
)
from pycaffe_prune.pruning.weight_blobs import weights_of

__all__ = [
    "DEFAULT_RATES",
    "Analysis",
    "SensitivityRequest",
    "measure",
    "plan",
    "scores_of",
    "working_in",
]

DEFAULT_RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

# Pruned weights that wait on disk for the engine, which tests them in one process.
_BATCH_BYTES = 1 << 29

Observer = Callable[[SensitivityResult], None]
"""Called with the result so far, after each test."""


@dataclass(frozen=True)
class SensitivityRequest:
    """A sensitivity analysis as a user asks for it."""

    net: Path
    weights: Path
    data: Path
    """Folder that holds the net's LMDBs."""
    method: SensitivityMethod = "connections"
    criterion: str = "onorm"
    """Of units."""
    layers: str | None = None
    """As `pruning.selection.select_layers` takes them; None: all that can be pruned."""
    rates: tuple[float, ...] = DEFAULT_RATES
    images: int | None = None
    """Test on the first images only."""
    accuracy: str | None = None
    """The layer that tests judge; None: chosen by `engines.test_plan`."""
    state: StateWish = OWN_STATE
    """In which the net is tested, and whose layers are pruned."""
    data_name: str = ""
    is_sample: bool = False
    device: str = "cpu"
    threads: int = 1
    trust: bool = False
    """Whether the net is the user's own, and may run code and write (`net.trust`)."""


@dataclass(frozen=True)
class Analysis:
    """A sound request, with what was read for it and what its folder holds already."""

    request: SensitivityRequest
    folder: SensitivityFolder
    net: NetParameter
    model: Caffemodel
    settings: SensitivitySettings
    earlier: SensitivityResult | None
    inputs: Mapping[str, Shape]
    """Shapes of what the test's data layers bring."""

    @property
    def places(self) -> dict[str, tuple[BlobKey, ...]]:
        """Connections: the matrices of each layer, those that layers share in the first only."""
        types = {layer.layer: layer.type for layer in self.settings.layers}
        keys = first_of_each(shared_blobs(self.net), weights_of(types, types, self.model))
        return {name: tuple(key for key in keys if key[0] == name) for name in types}

    @property
    def todo(self) -> list[tuple[str, float]]:
        """Layer and rate of the points that are not measured yet."""
        points = self.earlier.points if self.earlier else ()
        done = {(point.layer, point.rate) for point in points}
        asked = [
            (layer.layer, rate) for layer in self.settings.layers for rate in self.settings.rates
        ]
        return [point for point in asked if point not in done]


def plan(request: SensitivityRequest, out: Path) -> Analysis:
    """Check a request and see how far its folder is; nothing is written.

    Raises:
        PruneError: Net, weights, data or layers are at fault, or ``out`` holds another analysis.
    """
    net = read_net_in_state(request.net, request.state)
    if not request.trust:
        refuse_untrusted(net, request.net)
    refuse_carried(net, request.net, "an engine")
    model = read_weights(request.weights)
    require_fitting(net, model)
    with temporary_folder() as place:
        trial = RunFolder(place)
        job = prepare_evaluation(
            request.net,
            [],
            request.data,
            trial,
            request.images,
            state=request.state,
            accuracy=request.accuracy,
            trust=request.trust,
        )
        prepared = read_net(trial.net)
        inputs = data_shapes(layers_in_state(prepared, NetState.of(prepared, TEST)))
    settings = SensitivitySettings(
        net_sha256=job.net_sha256,
        weights_sha256=sha256_of(request.weights),
        method=request.method,
        criterion=request.criterion if request.method == "units" else None,
        layers=tuple(_layers(request, net, model)),
        rates=request.rates,
        images=job.test_images,
        accuracy_name=job.test.layer,
        trusted=request.trust,
    )
    folder = SensitivityFolder(out)
    earlier = read_sensitivity(folder.result) if folder.result.exists() else None
    if earlier and earlier.accuracy_name is None and job.headline_mark is None:
        earlier = earlier.named(job.test.layer)
    if earlier and (differences := earlier.settings.differences(settings)):
        raise FormatError(
            f"{out}: holds another analysis, with other {', '.join(differences)}; choose another "
            "--out or remove it"
        )
    return Analysis(request, folder, net, model, settings, earlier, inputs)


def _layers(
    request: SensitivityRequest, net: NetParameter, model: Caffemodel
) -> Iterator[LayerSize]:
    """The chosen layers; of those that are pruned together the first."""
    types = {layer.name: layer.type for layer in net.layer}
    if request.method == "units":
        candidates = of_chosen_state(
            [(name, types[name]) for name in prunable_layers(net, model)], net, request.state
        )
        together = {name: group for group in units_together(net, model) for name in group}
        counts = unit_counts(net, model)
        seen: set[str] = set()
        for name in select_layers(candidates, request.layers):
            if name not in seen:
                seen.update(together[name])
                yield LayerSize(layer=name, type=types[name], size=counts[name])
        return
    shared = shared_blobs(net)
    there = of_chosen_state(connection_layers(net, model), net, request.state)
    chosen = select_layers(there, request.layers)
    keys = first_of_each(shared, weights_of(chosen, types, model))
    require_equal_blobs(shared, model, keys)
    require_finite(model, dict.fromkeys(name for name, _ in keys))
    for name, group in groupby(keys, key=lambda key: key[0]):
        size = sum(model.layer(name).blobs[index].size for _, index in group)
        yield LayerSize(layer=name, type=types[name], size=size)


@contextmanager
def working_in(out: Path) -> Iterator[None]:
    """Keep other processes out of an analysis's folder, and tidy up after the work.

    Raises:
        PruneError: Another process is working in it, or it cannot be made.
    """
    folder = SensitivityFolder(out)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.lock, timeout=0):
            yield
            shutil.rmtree(folder.testing.path, ignore_errors=True)
    except Timeout as error:
        raise PruneError(f"{out}: another process is working in this folder") from error
    except OSError as error:
        raise PruneError(f"{out}: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Pruned:
    """One layer pruned at one rate: what its point says besides the score."""

    layer: str
    rate: float
    kept: int
    alpha: float | None


def measure(analysis: Analysis, engine: Engine, observe: Observer) -> SensitivityResult:
    """Measure what is not measured yet; each point is on disk before the next one is tested.

    Args:
        analysis: From `plan`.
        engine: What tests.
        observe: Called after each test.

    Raises:
        InterruptedRunError: The engine was asked to stop; the same call goes on from there.
        FormatError: What is measured so far is another engine's.
        PruneError: A layer cannot be pruned at a rate, or the engine failed.
    """
    result, todo = analysis.earlier, analysis.todo
    if result is not None and todo and result.engine != engine.name:
        raise FormatError(
            f"{analysis.folder.path}: was begun by the engine {result.engine}; go on with "
            f"--engine {result.engine}, or choose another --out"
        )
    if result is None:
        (score,) = scores_of(analysis, [analysis.model], engine)
        result = _started(analysis, score, engine.name)
        write_sensitivity(analysis.folder.result, result)
    step = max(1, _BATCH_BYTES // sum(blob.nbytes for _, blob in analysis.model.blobs()))
    for start in range(0, len(todo), step):
        pruned = [_prune(analysis, *point) for point in todo[start : start + step]]
        scores = scores_of(analysis, [model for model, _ in pruned], engine)
        try:
            for score, (_, point) in zip(scores, pruned, strict=True):
                result = _with_point(result, point, score)
                write_sensitivity(analysis.folder.result, result)
                observe(result)
        except InterruptedRunError as stop:
            asked = len(analysis.settings.layers) * len(analysis.settings.rates)
            raise InterruptedRunError(
                f"stopped with {len(result.points)} of {asked} points done; the same command goes "
                "on from there"
            ) from stop
    return result


def scores_of(analysis: Analysis, models: Sequence[Caffemodel], engine: Engine) -> Iterator[Score]:
    """Test weights of the analysis's net one after the other, in one process of the engine.

    Raises:
        As `engines.base.Engine.evaluate`.
    """
    request, folder = analysis.request, analysis.folder.testing
    paths = [folder.path / f"{place}.caffemodel" for place in range(len(models))]
    for path, model in zip(paths, models, strict=True):
        write_caffemodel(path, model)
    job = prepare_evaluation(
        request.net,
        paths,
        request.data,
        folder,
        request.images,
        device=request.device,
        threads=request.threads,
        state=request.state,
        accuracy=request.accuracy,
        trust=request.trust,
    )
    for score in engine.evaluate(folder, job):
        yield Score.model_validate(score.model_dump(include=set(Score.model_fields)))


def _prune(analysis: Analysis, layer: str, rate: float) -> tuple[Caffemodel, _Pruned]:
    net, model, request = analysis.net, analysis.model, analysis.request
    if request.method == "units":
        units = choose_units(net, model, {layer: rate}, criterion=request.criterion)
        kept = int(units[layer].sum())
        return mask_units(net, model, units), _Pruned(layer, rate, kept, None)
    _, masks = prune_to_ratios(model, dict.fromkeys(analysis.places[layer], rate))
    kept = sum(int(mask.sum()) for mask in masks.values())
    point = _Pruned(layer, rate, kept, _alpha(model, masks))
    return apply_masks(model, masks_for_all(shared_blobs(net), model, masks)), point


def _alpha(model: Caffemodel, masks: Mapping[BlobKey, Mask]) -> float | None:
    """The multiple of sigma that prunes so; None where there is none or more than one."""
    alphas = set()
    for (layer, index), limit in resulting_thresholds(model, masks).items():
        sigma = sigma_of(model.layer(layer).blobs[index])
        alphas.add(limit / sigma if sigma else None)
    return alphas.pop() if len(alphas) == 1 else None


def _started(analysis: Analysis, baseline: Score, engine_name: str) -> SensitivityResult:
    return SensitivityResult(
        title=analysis.net.name,
        data=analysis.request.data_name,
        is_sample=analysis.request.is_sample,
        engine=engine_name,
        versions={"pycaffe-prune": __version__},
        machine=this_machine(),
        settings=analysis.settings,
        baseline=baseline,
        points=(),
    )


def _with_point(result: SensitivityResult, pruned: _Pruned, score: Score) -> SensitivityResult:
    point = SensitivityPoint(
        layer=pruned.layer, rate=pruned.rate, kept=pruned.kept, alpha=pruned.alpha, score=score
    )
    order = [layer.layer for layer in result.settings.layers]
    points = sorted((*result.points, point), key=lambda item: (order.index(item.layer), item.rate))
    return result.model_copy(update={"points": tuple(points)})
