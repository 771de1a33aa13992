"""A net compressed until so many points are lost, or until it is so many times smaller.

Rates per layer follow from what each layer loses alone, under one budget
(`methods.automatic_rates`). What is left is trained; its weights are shared, and the values that
they share are trained (`methods.deep_compression`). How far that can go is found by trying,
on training images that were held out: the test set judges once, in the end. Each trial is a stage,
so that a run that was stopped goes on.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from pycaffe_prune.engines.base import Engine, Observer, TestScore
from pycaffe_prune.engines.data_paths import DataFolder
from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.prepare import prepare_evaluation
from pycaffe_prune.engines.readable import Readable
from pycaffe_prune.engines.run import train
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.engines.solver_nets import net_of_solver
from pycaffe_prune.errors import PruneError
from pycaffe_prune.experiments.baselines import Baseline
from pycaffe_prune.experiments.compression.held_out import data_set_of, held_out_data
from pycaffe_prune.experiments.compression.result import (
    Answers,
    CompressionResult,
    Trial,
    write_compression,
)
from pycaffe_prune.experiments.compression.search import strongest
from pycaffe_prune.experiments.plan import make_plan
from pycaffe_prune.experiments.pretrained import Pretrained
from pycaffe_prune.experiments.result import DataSet, Execution
from pycaffe_prune.experiments.spec import BaselineSpec, ExperimentSpec
from pycaffe_prune.experiments.stages import Context, Stage, StageOutput
from pycaffe_prune.experiments.store.stage_lock import Stop
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, read_caffemodel, write_caffemodel
from pycaffe_prune.formats.compressed.file import compressed_size
from pycaffe_prune.formats.files import sha256_of
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.formats.temporary import temporary_folder
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.methods.automatic_rates import AutomaticRates, RatesStage
from pycaffe_prune.methods.deep_compression import SharedValues
from pycaffe_prune.pruning.selection import connection_layers

__all__ = ["KEPT", "Compression", "CompressionRequest", "Shares"]


KEPT = (
    0.5,
    0.35,
    0.25,
    0.18,
    0.125,
    0.09,
    0.0625,
    0.044,
    0.031,
    0.022,
    0.016,
    0.011,
    0.008,
    0.0055,
)
"""Shares of the weights that are kept, as they are tried."""


@dataclass(frozen=True)
class Shares:
    """Bits of a weight."""

    convolutions: int
    others: int

    def of(self, types: Mapping[str, str]) -> dict[str, int]:
        """Return the bits of each layer, by its type."""
        return {
            name: self.convolutions if kind in _FILTERED else self.others
            for name, kind in types.items()
        }


_FILTERED = ("Convolution", "Deconvolution")
_SHARES = tuple(
    Shares(*bits) for bits in ((8, 8), (8, 6), (8, 5), (7, 4), (6, 4), (5, 3), (4, 3), (4, 2))
)
"""As they are tried: convolutions need more (Han et al. 2016, figure 7)."""
_JUDGES = 5_000
"""Training images on which the layers' rates are found, at most."""
_MOMENT = 50
_USUAL = Shares(8, 5)
"""The authors', for their nets; where a size is asked for."""


@dataclass(frozen=True)
class CompressionRequest:
    """A compression as a user asks for it: ``points`` or ``times`` is given."""

    solver: Path
    weights: Path
    data: Path
    run: Path
    """Folder in which trials are kept, so that the same request goes on."""
    iterations: int
    """Of each training."""
    points: float | None = None
    """How many points of accuracy may be lost on the held-out images."""
    times: float | None = None
    """How many times smaller the file is to be than all values as float32."""
    images: int = 5_000
    """How many training images are held out."""
    held_out: Path | None = None
    """Or a folder like ``data`` whose test images are held out already."""
    accuracy: str | None = None
    """The layer that tests judge; None: chosen by `engines.test_plan`."""
    execution: Execution = field(default_factory=Execution)

    @property
    def final(self) -> Path:
        """The caffemodel that was found."""
        return self.run / "final.caffemodel"

    @property
    def result(self) -> Path:
        """What was tried (`experiments.compression.result.CompressionResult`)."""
        return self.run / "compression.json"


class Compression:
    """A compression on its way.

    Args:
        request: What is asked for.
        engine: What trains and tests.
        say: Told in a sentence what comes, and what came of it.
        watch: Gives what is told of a stage's events while it is done.

    Raises:
        As `experiments.reproduce.make_plan` and `held_out_data`.
    """

    def __init__(
        self,
        request: CompressionRequest,
        engine: Engine,
        say: Callable[[str], None],
        watch: Callable[[Stage], AbstractContextManager[Observer]],
    ) -> None:
        self._request, self._engine, self._say, self._watch = request, engine, say, watch
        self._model = read_weights(request.weights)
        self._trials: list[Trial] = []
        self.stop = Stop()
        net_path = net_of_solver(request.solver)
        net = read_net(net_path)
        self._types = dict(connection_layers(net, self._model))
        # Of a net without convolutions some are the same.
        self._shares = [*{tuple(one.of(self._types).items()): one for one in _SHARES}.values()]
        data_set, place = self._held_out(net, net_path)
        spec = ExperimentSpec(
            name="compress",
            preset="held-out",
            title=net.name,
            solver=str(request.solver),
            data="mnist",
            layers=tuple(name for name, kind in self._types.items() if kind == "InnerProduct"),
            accuracy=request.accuracy,
            baseline=BaselineSpec(seeds=(1,), iterations=1),
        )
        self._training_images = data_set.train_images
        plan = make_plan(
            spec,
            request.solver,
            request.run,
            place,
            data_set,
            engine.name,
            request.execution,
        )
        self._context: Context = plan.benches[0].context
        weights = request.weights.resolve()
        self._start = Baseline(self._context, 0, 1, Pretrained(weights, sha256_of(weights)))
        self._net = net_path

    def _held_out(self, net: NetParameter, net_path: Path) -> tuple[DataSet, Path]:
        request = self._request
        own = (net_path.resolve().parent, request.solver.resolve().parent)

        def folder(place: Path) -> DataFolder:
            trust = request.execution.trusted
            return DataFolder(place, Readable.of(net_path, place, own, trust=trust))

        if request.held_out is not None:
            return data_set_of(net, folder(request.held_out)), request.held_out
        place = request.run / "held-out"
        return held_out_data(net, folder(request.data), place, request.images), place

    def run(self) -> CompressionResult:
        """Find the strongest settings that do what is asked for, and write what they give.

        Raises:
            InterruptedRunError: It was stopped; the same request goes on from there.
            PruneError: No setting that is tried does it, or training failed.
        """
        whole = _answers(self._done(self._start).after)
        self._say(f"whole net: {whole.percent:.2f} % of {whole.images:,} held-out images")
        (whole_test,) = self._tested([self._model])
        for doubt in _doubts(whole, whole_test, self._request.points):
            self._say(doubt)
        points, times = self._request.points, self._request.times
        found = None
        if points is not None:
            found = self._within_points(lambda trial: trial.held_out.points_below(whole) <= points)
        elif times is not None:
            found = self._within_size(int(self._dense_bytes / times))
        if found is None:
            raise PruneError(
                "no net of those that were tried does it; ask for less, or train longer with "
                "--max-iter"
            )
        return self._finish(whole, whole_test, *found)

    @property
    def fewest_and_most_trainings(self) -> tuple[int, int]:
        """How many trainings it takes, if some bits are good enough at the strongest pruning."""
        rates, shares = len(KEPT).bit_length(), len(self._shares).bit_length()
        if self._request.times is not None:
            return 2 * (rates - 1), 2 * rates
        return rates + shares - 2, rates + shares

    def seconds_per_iteration(self) -> float:
        """Train for a moment, in a temporary folder, and return what an iteration takes."""
        with temporary_folder() as folder:
            request = TrainRequest(
                solver=self._request.solver,
                net=self._net,
                data=self._request.data,
                max_iter=_MOMENT,
                test_interval=0,
                accuracy=self._context.accuracy,
                device=self._context.device,
                threads=self._context.threads,
                trust=self._context.trust,
                own=self._context.own,
            )
            return train(request, folder, self._engine, lambda _: None).seconds / _MOMENT

    @property
    def _dense_bytes(self) -> int:
        return 4 * sum(blob.size for _, blob in self._model.blobs())

    def _within_points(self, is_good: Callable[[Trial], bool]) -> tuple[Stage, Trial] | None:
        """The strongest bits of the strongest pruning that are good."""
        rates: Sequence[float] = KEPT
        while rates:
            kept = strongest(rates, lambda kept: is_good(self._pruned(kept)[1]))
            if kept is None:
                return None
            bits = self._fewest_bits(kept, is_good)
            if bits is not None:
                return self._shared(kept, bits)
            rates = rates[: rates.index(kept)]
        return None

    def _fewest_bits(self, kept: float, is_good: Callable[[Trial], bool]) -> Shares | None:
        return strongest(self._shares, lambda bits: is_good(self._shared(kept, bits)[1]))

    def _within_size(self, most: int) -> tuple[Stage, Trial] | None:
        """The mildest pruning, at usual bits, of which the file is small enough."""
        kept = strongest(KEPT[::-1], lambda kept: self._shared(kept, _USUAL)[1].size <= most)
        return None if kept is None else self._shared(kept, _USUAL)

    def _pruned(self, kept: float) -> tuple[RatesStage, Trial]:
        layers = tuple(self._types)
        method = AutomaticRates(
            budgets=(kept,),
            layers=layers,
            images=min(_JUDGES, self._training_images),
            iterations=self._request.iterations,
        )
        stage = RatesStage(self._context, self._request.iterations, (self._start,), method, kept)
        return stage, self._tried(stage, kept, None)

    def _shared(self, kept: float, shares: Shares) -> tuple[SharedValues, Trial]:
        bits = shares.of(self._types)
        stage = SharedValues(
            context=self._context,
            iterations=self._request.iterations,
            baselines=(self._start,),
            pruned=self._pruned(kept)[0],
            bits=tuple(bits.items()),
            init="linear",
            gradient="mean",
            seed=0,
            told=f"shared-{shares.convolutions}-{shares.others}-bits-of-{kept:g}",
        )
        return stage, self._tried(stage, kept, bits)

    def _tried(self, stage: Stage, kept: float, bits: dict[str, int] | None) -> Trial:
        output = self._done(stage)
        trial = Trial(
            kept=kept,
            bits=bits,
            held_out=_answers(output.after),
            size=compressed_size(read_caffemodel(stage.folder.training.final_weights)),
        )
        if trial not in self._trials:
            self._trials.append(trial)
            self._say(
                f"{stage.label}: {trial.held_out.percent:.2f} %, {trial.size:,} bytes, "
                f"{self._dense_bytes / trial.size:.1f} times smaller"
            )
        return trial

    def _done(self, stage: Stage) -> StageOutput:
        found = stage.output()
        if found is None:
            with self._watch(stage) as observe:
                found = stage.run(self._engine, observe, self.stop)
        return found

    def _finish(
        self, whole: Answers, whole_test: Answers, stage: Stage, chosen: Trial
    ) -> CompressionResult:
        model = read_caffemodel(stage.folder.training.final_weights)
        (small_test,) = self._tested([model])
        write_caffemodel(self._request.final, model)
        result = CompressionResult(
            engine=self._engine.name,
            points=self._request.points,
            times=self._request.times,
            dense_bytes=self._dense_bytes,
            whole_held_out=whole,
            trials=tuple(self._trials),
            chosen=chosen,
            whole_test=whole_test,
            compressed_test=small_test,
        )
        write_compression(self._request.result, result)
        return result

    def _tested(self, models: Sequence[Caffemodel]) -> list[Answers]:
        """Answers on the test images, with the data as it was given."""
        with temporary_folder() as folder:
            testing = RunFolder(folder)
            paths = [folder / f"{place}.caffemodel" for place in range(len(models))]
            for path, model in zip(paths, models, strict=True):
                write_caffemodel(path, model)
            job = prepare_evaluation(
                self._net,
                paths,
                self._request.data,
                testing,
                device=self._context.device,
                threads=self._context.threads,
                accuracy=self._context.accuracy,
                trust=self._context.trust,
            )
            return [_answers(score) for score in self._engine.evaluate(testing, job)]


def _answers(score: TestScore) -> Answers:
    counted = score.images if score.counted is None else score.counted
    return Answers(correct=score.correct, images=counted)


def _doubts(whole: Answers, test: Answers, points: float | None) -> Iterator[str]:
    """Sentences on what the held-out images cannot tell."""
    known, of_test = _error(whole), _error(test)
    if points is not None and points < 2 * known:
        yield (
            f"by {whole.images:,} images an accuracy is known to {2 * known:.2f} points, no "
            f"better: the test images may tell otherwise than what is chosen for {points:g}"
        )
    if test.points_below(whole) > 3 * math.hypot(known, of_test):
        yield (
            f"the whole net answers {whole.percent:.2f} % of the held-out images and "
            f"{test.percent:.2f} % of the test images: it seems to be trained on the former, and "
            "will lose more on them than on others. Name a data set of which it knows the training "
            "images alone with --held-out"
        )


def _error(answers: Answers) -> float:
    """The standard error of an accuracy, in points."""
    share = answers.correct / answers.images
    return 100 * math.sqrt(share * (1 - share) / answers.images)
