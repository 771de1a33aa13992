"""``caffe-prune inspect``: what a net or a file of weights holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from pycaffe_prune.cli.input_shapes import input_shapes_option
from pycaffe_prune.cli.inspect_tables import show_model, show_net, show_storage, show_totals
from pycaffe_prune.cli.options import path_type, phase_option, state_options
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.formats.sparse import storage_sizes
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.counts import NetCounts, count_file
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.shapes import Shape
from pycaffe_prune.net.state_wish import StateWish, chosen_layers, read_net_in_state
from pycaffe_prune.net.summary import ModelSummary, summarise
from pycaffe_prune.pruning.connections import nonzero_where_masked


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=path_type)
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of tables.")
@click.option("--totals", is_flag=True, help="One row per prototxt instead of one per layer.")
@phase_option
@state_options
@click.option(
    "--storage", is_flag=True, help="Bytes of caffemodels: dense, sparse, and either zipped."
)
@input_shapes_option
@click.option(
    "--net",
    type=path_type,
    help="The prototxt that weights are used in, for their MACs (default: what their file says).",
)
@click.option(
    "--audit",
    type=path_type,
    metavar="MASK",
    help="Check that every weight this mask file prunes is exactly zero.",
)
def inspect(
    files: tuple[Path, ...],
    as_json: bool,
    totals: bool,
    state: StateWish,
    storage: bool,
    inputs: Mapping[str, Shape],
    net: Path | None,
    audit: Path | None,
) -> None:
    """Show layers, shapes, parameters and multiply-accumulates (MACs) of nets and weights.

    A FILE that ends in .prototxt is a net: shapes, parameters, MACs and activations of its layers
    for one image. Any other is a file of weights (.caffemodel, .caffemodel.h5): shapes and
    non-zeros. With --audit, exit code 1 when a pruned weight is not zero.

    \b
    Examples:
      caffe-prune inspect lenet_iter_10000.caffemodel
      caffe-prune inspect before.caffemodel after.caffemodel --json
      caffe-prune inspect final.caffemodel --audit kept.mask.h5
      caffe-prune inspect pruned.caffemodel --storage
      caffe-prune inspect prototxt/vgg_16/deploy.prototxt
      caffe-prune inspect train_val.prototxt --phase train --input-shape data=64x1x28x28
      caffe-prune inspect all_in_one.prototxt --stage deploy
      caffe-prune inspect prototxt/*/deploy.prototxt --totals
    """
    nets = [path for path in files if path.suffix == ".prototxt"]
    models = [path for path in files if path not in nets]
    if models and totals:
        raise click.UsageError(f"--totals counts prototxts; {models[0]} is none")
    if nets and (net or audit or storage):
        raise click.UsageError(
            f"--net, --audit and --storage are for weights; {nets[0]} is a prototxt"
        )
    if storage:
        _show_storage(models, as_json)
    else:
        shown = [
            count_file(path, state, inputs)
            if path in nets
            else _summarise(path, net, state, inputs)
            for path in files
        ]
        if as_json:
            dumped = [item.model_dump(mode="json") for item in shown]
            click.echo(json.dumps(dumped, indent=1))
        else:
            _show(shown, totals)
    if audit is not None:
        for path in models:
            _audit(path, audit)


def _summarise(
    path: Path, net: Path | None, state: StateWish, inputs: Mapping[str, Shape]
) -> ModelSummary:
    if net is None:
        return summarise(path, inputs=inputs)
    definition = read_net_in_state(net, state)
    try:
        require_fitting(definition, read_weights(path), inputs)
    except SurgeryError as error:
        raise SurgeryError(f"{path} does not fit {net}: {error}") from error
    return summarise(path, chosen_layers(definition, state), inputs)


def _console() -> Console:
    # Layers and files may be called [anything]: no markup.
    return Console(markup=False, emoji=False, highlight=False)


def _show_storage(models: Sequence[Path], as_json: bool) -> None:
    sizes = {path: storage_sizes(path) for path in models}
    if as_json:
        dumped = [{"path": str(path), **asdict(found)} for path, found in sizes.items()]
        click.echo(json.dumps(dumped, indent=1))
    else:
        for path, found in sizes.items():
            show_storage(_console(), path, found)


def _show(shown: Sequence[NetCounts | ModelSummary], totals: bool) -> None:
    console = _console()
    if totals:
        show_totals(console, [item for item in shown if isinstance(item, NetCounts)])
        return
    for item in shown:
        if isinstance(item, NetCounts):
            show_net(console, item)
        else:
            show_model(console, item)


def _audit(path: Path, mask_path: Path) -> None:
    found = nonzero_where_masked(read_weights(path), read_mask(mask_path).masks)
    bad = {f"{name}/{index}": count for (name, index), count in found.items() if count}
    if bad:
        listed = ", ".join(f"{count} in {place}" for place, count in bad.items())
        raise SurgeryError(
            f"{path}: pruned weights are not zero: {listed}; they were trained without "
            f"--mask {mask_path}"
        )
    click.echo(f"{path}: all weights that {mask_path} prunes are exactly zero", err=True)
