"""``caffe-prune prune predict``: most weights of a layer predicted by a fixed dictionary."""

from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from pycaffe_prune.cli.input_shapes import input_shapes_option
from pycaffe_prune.cli.options import engine_to_work_with, state_options
from pycaffe_prune.cli.prune.layer_values import layer_values
from pycaffe_prune.cli.prune.options import (
    OF_IMAGES,
    Images,
    image_options,
    layers_option,
    model_options,
)
from pycaffe_prune.cli.prune.output import naming_inputs, of_all_states, read_model, write_model
from pycaffe_prune.cli.prune.unit_ranking import refuse_idle
from pycaffe_prune.cli.tables import table_console
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.errors import DataError
from pycaffe_prune.experiments.features.input_covariance import input_covariance
from pycaffe_prune.experiments.features.training_images import training_images
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.shapes import Shape
from pycaffe_prune.net.state_wish import StateWish, in_wished_state, of_chosen_state
from pycaffe_prune.net.trust import refuse_untrusted
from pycaffe_prune.pruning.factoring import can_be_factored, left_out_of_factoring
from pycaffe_prune.pruning.predicted_layers import (
    Kernel,
    PredictedLayer,
    covariance_kernel,
    drawn,
    place_kernel,
    predict_layers,
)
from pycaffe_prune.screen import echo

__all__ = ["predict"]

_PLACES, _COVARIANCE = "squared-exponential", "covariance"
_MOST_IMAGES = 10_000


@click.command()
@model_options("Weights in any form.", "Folder for the model.")
@click.option(
    "--share",
    "shares",
    multiple=True,
    required=True,
    metavar="S | LAYER=S",
    help="Share of the inputs whose weights are predicted: of all --layers, or of one.",
)
@layers_option("S")
@click.option(
    "--kernel",
    type=click.Choice([_PLACES, _COVARIANCE]),
    default=_PLACES,
    show_default=True,
    help="How alike the weights of two inputs are: by how near their pixels are, or by how they "
    "vary together over training images.",
)
@click.option(
    "--scale",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="Of the squared exponential, in pixels.",
)
@click.option(
    "--ridge",
    type=click.FloatRange(0, min_open=True),
    default=0.001,
    show_default=True,
    help="How far predictions may be off at the sampled inputs (lambda).",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the sampled inputs.")
@click.option("--dry-run", is_flag=True, help="Show what would be learned and write nothing.")
@input_shapes_option
@state_options
@image_options("The first N training images.  [default: 10000, or all if there are fewer]")
@naming_inputs
def predict(
    net: Path,
    weights: Path,
    shares: tuple[str, ...],
    out: Path,
    layers: str,
    kernel: str,
    scale: float,
    ridge: float,
    seed: int,
    images: Images,
    dry_run: bool,
    inputs: Mapping[str, Shape],
    state: StateWish,
) -> None:
    """Predict most weights of a layer; write net.prototxt and pruned.caffemodel.

    The layer ip1 becomes ip1_v, a fixed dictionary that no training changes (lr_mult 0), and ip1,
    which has weights for a few sampled inputs alone. The dictionary makes those of all inputs out
    of them by kernel ridge regression (Denil et al. 2013). Both are stock Caffe layers. To begin
    with, what is learned comes as near to the weights as it can; train it on.

    The squared exponential is for layers that read maps, such as images, whose size a train_val
    net does not tell: --input-shape. The covariance is for InnerProduct layers, and takes --data.

    \b
    Examples:
      caffe-prune prune predict --net deploy.prototxt --weights lenet_300_100.caffemodel \\
          --share ip1=0.9 --out predicted
      caffe-prune prune predict --net train_val.prototxt --weights final.caffemodel \\
          --share ip1=0.9 --input-shape data=64x1x28x28 --out predicted
      caffe-prune prune predict --net train_val.prototxt --weights final.caffemodel \\
          --share ip1=0.9 --share ip2=0.5 --kernel covariance --data data/mnist --out predicted
      caffe-prune train --solver solver.prototxt --net predicted/net.prototxt \\
          --weights predicted/pruned.caffemodel --data data/mnist --out retrained
    """
    if kernel == _PLACES:
        refuse_idle(f"goes with --kernel {_COVARIANCE}", *OF_IMAGES)
    else:
        refuse_idle(f"goes with --kernel {_PLACES}", "scale", "inputs")
    definition, model = read_model(net, weights, state)
    whole = of_all_states(net, definition, model)
    candidates = of_chosen_state(can_be_factored(whole, model), definition, state)
    wanted = layer_values(shares, candidates, layers, left_out_of_factoring(whole, model))
    samples = {name: drawn(whole, model, name, share, seed) for name, share in wanted.items()}
    if kernel == _PLACES:
        kernels = {
            name: place_kernel(definition, model, name, places, scale, inputs)
            for name, places in samples.items()
        }
    else:
        kernels = _of_images(whole, model, samples, images)
    new_net, new, rows = predict_layers(whole, model, kernels, ridge)
    _show(rows)
    if dry_run:
        return
    write_model(out, net, new_net, new)
    echo(f"written to {out}")


def _of_images(
    net: NetParameter,
    model: Caffemodel,
    samples: Mapping[str, NDArray[np.int64]],
    images: Images,
) -> dict[str, Kernel]:
    path, trust = images.net_path, images.wish.trust
    wished = in_wished_state(net, images.state, path)
    if not trust:
        refuse_untrusted(wished, path)
    source = training_images(wished, path, images.data, trust=trust)
    count = images.count or min(source.count, _MOST_IMAGES)
    if count > source.count:
        raise DataError(f"{source.database}: holds {source.count} images, not {count}")
    kernels = {}
    with engine_to_work_with(images.wish) as engine, stop_on_signal(engine.stop):
        for name, places in samples.items():
            found = input_covariance(
                wished, path, model, name, places, source, range(count), engine, trust=trust
            )
            kernels[name] = covariance_kernel(name, places, *found)
    return kernels


def _show(rows: Mapping[str, PredictedLayer]) -> None:
    table = Table()
    table.add_column("layer")
    for column in ("inputs", "sampled", "weights", "learned", "fixed", "error %"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        counts = (row.inputs, row.samples, row.before, row.learned, row.fixed)
        table.add_row(name, *(f"{count:,}" for count in counts), f"{100 * row.error:.2f}")
    table_console().print(table)
