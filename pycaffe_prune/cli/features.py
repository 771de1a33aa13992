"""``caffe-prune features``: what a trained net says of every image, as a data set to train on."""

import os
from pathlib import Path
from threading import Event

import click
import numpy as np
from numpy.typing import NDArray

from pycaffe_prune.cli.options import (
    caffe_python_option,
    device_option,
    engine_option,
    engine_to_work_with,
    require_sense,
    text_path_type,
    tf32_option,
    trust_option,
)
from pycaffe_prune.cli.progress import console
from pycaffe_prune.engines.choice import EngineName, EngineWish
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.experiments.features.build import FeatureRequest, build_features
from pycaffe_prune.formats.mean import read_mean
from pycaffe_prune.screen import echo

__all__ = ["features"]


@click.command()
@click.option("--net", type=text_path_type, required=True, help="Prototxt, deploy or train_val.")
@click.option("--weights", type=text_path_type, required=True, help="Its trained caffemodel.")
@click.option("--blob", required=True, help="The blob whose values are the features.")
@click.option(
    "--pool",
    type=click.IntRange(1),
    metavar="N",
    help="Average each map over the cells of an N×N grid.",
)
@click.option("--data", type=text_path_type, required=True, help="Folder of the images' data set.")
@click.option("--out", type=text_path_type, required=True, help="Folder of the features; made.")
@click.option(
    "--mean",
    metavar="B,G,R|FILE",
    help="Subtracted from the images: a value a channel, or a mean image.",
)
@click.option(
    "--scale", type=float, default=1.0, show_default=True, help="Then they are multiplied by it."
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Images at a time: speed and memory.",
)
@click.option("--jobs", type=click.IntRange(1), help="Batches side by side (default: all cores).")
@click.option("--force", is_flag=True, help="Compute again what is already there.")
@engine_option
@device_option
@tf32_option
@trust_option
@caffe_python_option
def features(
    net: Path,
    weights: Path,
    blob: str,
    pool: int | None,
    data: Path,
    out: Path,
    mean: str | None,
    scale: float,
    batch: int,
    jobs: int | None,
    force: bool,
    engine: EngineName,
    device: str,
    tf32: bool,
    trust: bool,
    caffe_python: Path | None,
) -> None:
    """Run every image of a data set through a trained net, and keep one blob of it.

    Makes a data set of its own: features_train_lmdb and features_test_lmdb for Data layers, their
    mean, and a manifest. Layers that are trained on it are trained as if those below were frozen.
    Images that are larger than the net's input are cut out of the middle. Interrupted or killed,
    the same command goes on where it was.

    \b
    Examples:
      caffe-prune features --net prototxt/squeezenet_v1.0/deploy_firenet.prototxt \\
          --weights squeezenet_v1.0_pruned.caffemodel --blob fire9/concat --pool 3 \\
          --mean 104,117,123 --data data/flowers102 --out data/features
      caffe-prune features --net deploy.prototxt --weights W --blob fc7 \\
          --mean imagenet_mean.binaryproto --data data/flowers102 --out data/fc7 --engine torch
    """
    wish = EngineWish(engine, caffe_python, device, tf32=tf32, trust=trust)
    require_sense(wish)
    prepared = _mean(mean) if mean else None
    request = FeatureRequest(
        net, weights, blob, data, pool, prepared, scale, batch, tf32, trust=trust
    )
    stopped = Event()
    with engine_to_work_with(wish) as chosen, stop_on_signal(stopped.set):
        manifest = build_features(
            out,
            request,
            chosen,
            jobs=jobs or len(os.sched_getaffinity(0)),
            force=force,
            console=console,
            stopped=stopped,
        )
    for name, split in manifest.splits.items():
        shape = "×".join(map(str, split.shape))
        echo(f"{name:<5} {split.count} × {shape} in {out / split.lmdb}")
    echo(f"mean  {out / manifest.mean}")


def _mean(text: str) -> NDArray[np.float32]:
    """A value a channel, or the file of a mean image."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        return read_mean(Path(text))
    return np.array(values, np.float32).reshape(-1, 1, 1)
