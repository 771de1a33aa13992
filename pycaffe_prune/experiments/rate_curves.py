"""What pruning each layer alone costs, on training images: for rates that are chosen in a stage.

The test images must not choose what they judge, so the TEST net is given the images of the TRAIN
net.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pycaffe_prune.engines.base import Engine
from pycaffe_prune.engines.prepare import prepare_evaluation
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.errors import FormatError
from pycaffe_prune.experiments.stages import Context
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import write_prototxt
from pycaffe_prune.net.graph import NetState, layers_in_state
from pycaffe_prune.pruning.allocation import CostCurve, cost_curve

__all__ = ["on_training_images", "rate_curves"]


def on_training_images(net: NetParameter) -> NetParameter:
    """Return the net with a TEST phase that reads the LMDB of the TRAIN phase.

    Raises:
        FormatError: A Data layer of the TEST net has none beside it in the TRAIN net.
    """
    changed = NetParameter()
    changed.CopyFrom(net)
    train, test = (
        [
            layer
            for layer in layers_in_state(changed, NetState.of(changed, phase))
            if not layer.bottom
        ]
        for phase in (TRAIN, TEST)
    )
    sources = {layer.top[0]: layer for layer in train if layer.type == "Data"}
    for layer in test:
        if layer.type != "Data" or layer.top[0] not in sources:
            raise FormatError(
                f"net '{net.name}': its layer '{layer.name}' ({layer.type}) of the phase TEST has "
                "no Data layer beside it in the phase TRAIN, whose images rates could be chosen on"
            )
        layer.data_param.source = sources[layer.top[0]].data_param.source
        layer.data_param.backend = sources[layer.top[0]].data_param.backend
    return changed


def rate_curves(
    context: Context,
    folder: Path,
    engine: Engine,
    model: Caffemodel,
    sizes: Mapping[str, int],
    rates: Sequence[float],
    prune: Callable[[str, float], Caffemodel],
    images: int,
) -> dict[str, CostCurve]:
    """Measure what each layer loses at each rate, the others whole, without retraining.

    Args:
        context: With the net.
        folder: Where pruned weights wait for their test.
        engine: What tests.
        model: The weights, not pruned.
        sizes: Weights or units of each layer.
        rates: Rising, above 0 and below 1.
        prune: Returns the weights with a layer pruned at a rate.
        images: How many of the first training images are tested on.

    Raises:
        As `engines.base.Engine.evaluate`.
    """
    testing = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    net = folder / "training_images.prototxt"
    write_prototxt(net, on_training_images(context.read_net()))

    def right(models: Sequence[Caffemodel]) -> list[float]:
        paths = [folder / f"{place}.caffemodel" for place in range(len(models))]
        for path, one in zip(paths, models, strict=True):
            write_caffemodel(path, one)
        job = prepare_evaluation(
            net,
            paths,
            context.data,
            testing,
            images,
            device=context.device,
            threads=context.threads,
            accuracy=context.accuracy,
            trust=context.trust,
        )
        scores = list(engine.evaluate(testing, job))
        for path in paths:
            path.unlink()
        return [score.correct / score.images for score in scores]

    (whole,) = right([model])
    return {
        layer: cost_curve(
            size,
            rates,
            [whole - share for share in right([prune(layer, rate) for rate in rates])],
        )
        for layer, size in sizes.items()
    }
