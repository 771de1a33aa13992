"""``caffe-prune inspect``: what a net or a file of weights holds."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import click

from pycaffe_prune.cli.endings import say_error
from pycaffe_prune.cli.input_shapes import input_shapes_option
from pycaffe_prune.cli.inspect.stored_parts import (
    StoredParts,
    is_compressed,
    show_parts,
    stored_parts,
)
from pycaffe_prune.cli.inspect.tables import show_model, show_net, show_storage, show_totals
from pycaffe_prune.cli.inspect.unknown_fields import warn_of_unknown_fields
from pycaffe_prune.cli.options import path_type, phase_option, state_options
from pycaffe_prune.cli.tables import table_console
from pycaffe_prune.errors import FormatError, PruneError, SurgeryError
from pycaffe_prune.formats.files import existing_file, holds_text
from pycaffe_prune.formats.mask import read_mask
from pycaffe_prune.formats.storage import StorageSizes, storage_sizes
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.counts import NetCounts, count_file
from pycaffe_prune.net.fit import require_fitting
from pycaffe_prune.net.shapes import Shape
from pycaffe_prune.net.state_wish import StateWish, chosen_layers, read_net_in_state
from pycaffe_prune.net.summary import ModelSummary, summarise
from pycaffe_prune.pruning.connections import nonzero_where_masked
from pycaffe_prune.screen import echo

_KINDS = "a net prototxt or a file of weights"
_Found = TypeVar("_Found")


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=path_type)
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of tables.")
@click.option("--totals", is_flag=True, help="One row per prototxt instead of one per layer.")
@phase_option
@state_options
@click.option(
    "--storage",
    is_flag=True,
    help="Bytes of a caffemodel in all forms, zipped too; of a compressed file, where each goes.",
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

    A FILE is told by its content. Text is a net prototxt: shapes, parameters, MACs and activations
    of its layers for one image. Any other is a file of weights (.caffemodel, .caffemodel.h5, .cpz):
    shapes and non-zeros, and of a compressed file where each byte goes. Exit code 1 when one of
    several files cannot be read (the others are shown), and with --audit when a pruned weight is
    not zero.

    \b
    Examples:
      caffe-prune inspect lenet_iter_10000.caffemodel
      caffe-prune inspect before.caffemodel after.caffemodel --json
      caffe-prune inspect final.caffemodel --audit kept.mask.h5
      caffe-prune inspect pruned.caffemodel --storage
      caffe-prune inspect small.cpz --storage
      caffe-prune inspect prototxt/vgg_16/deploy.prototxt
      caffe-prune inspect train_val.prototxt --phase train --input-shape data=64x1x28x28
      caffe-prune inspect all_in_one.prototxt --stage deploy
      caffe-prune inspect prototxt/*/deploy.prototxt --totals
    """
    nets, models, failures = _sorted_by_kind(files)
    if models and totals:
        raise click.UsageError(f"--totals counts prototxts; {models[0]} is none")
    if nets and (net or audit or storage):
        raise click.UsageError(
            f"--net, --audit and --storage are for weights; {nets[0]} is a prototxt"
        )

    def count(path: Path) -> NetCounts | ModelSummary:
        if path in nets:
            return _count(path, state, inputs)
        return _summarise(path, net, state, inputs)

    if storage:
        _show_storage(_each(models, _storage, failures), as_json)
    else:
        known = [path for path in files if path in (*nets, *models)]
        shown = [found for _, found in _each(known, count, failures)]
        if as_json:
            dumped = [item.model_dump(mode="json") for item in shown]
            click.echo(json.dumps(dumped, indent=1))
        else:
            _show(shown, totals)
    if audit is not None:
        _each(models, partial(_audit, mask_path=audit), failures)
    if failures:
        *others, last = failures
        for failure in others:
            say_error(failure)
        raise last


def _count(path: Path, state: StateWish, inputs: Mapping[str, Shape]) -> NetCounts:
    try:
        return count_file(path, state, inputs)
    except SurgeryError:
        warn_of_unknown_fields(path)  # one of them, misspelt, may be what is missing
        raise


def _sorted_by_kind(files: Sequence[Path]) -> tuple[list[Path], list[Path], list[PruneError]]:
    """The prototxts, the files of weights, and what is wrong with files that can be neither."""
    nets: list[Path] = []
    models: list[Path] = []

    def sort(path: Path) -> None:
        existing_file(path, _KINDS)
        if not path.stat().st_size:
            raise FormatError(f"{path}: is empty; {_KINDS} is needed")
        (nets if holds_text(path) else models).append(path)

    failures: list[PruneError] = []
    _each(files, sort, failures)
    return nets, models, failures


def _each(
    paths: Sequence[Path], work: Callable[[Path], _Found], failures: list[PruneError]
) -> list[tuple[Path, _Found]]:
    """What ``work`` finds in each file that is in order; the others' errors go to ``failures``."""
    found = []
    for path in paths:
        try:
            found.append((path, work(path)))
        except PruneError as error:
            failures.append(error)
    return found


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


def _storage(path: Path) -> StorageSizes | list[StoredParts]:
    return stored_parts(path) if is_compressed(path) else storage_sizes(path)


def _show_storage(
    sizes: Sequence[tuple[Path, StorageSizes | list[StoredParts]]], as_json: bool
) -> None:
    if as_json:
        dumped = [
            {"path": str(path), **({"rows": found} if isinstance(found, list) else asdict(found))}
            for path, found in sizes
        ]
        click.echo(json.dumps(dumped, indent=1))
        return
    for path, found in sizes:
        if isinstance(found, list):
            show_parts(table_console(), path, found)
        else:
            show_storage(table_console(), path, found)


def _show(shown: Sequence[NetCounts | ModelSummary], totals: bool) -> None:
    console = table_console()
    if totals:
        show_totals(console, [item for item in shown if isinstance(item, NetCounts)])
        return
    for item in shown:
        if isinstance(item, NetCounts):
            show_net(console, item)
        else:
            show_model(console, item)
            path = Path(item.path)
            if is_compressed(path):
                show_parts(console, path, stored_parts(path))


def _audit(path: Path, mask_path: Path) -> None:
    model = read_weights(path)
    mask = read_mask(mask_path, sum(blob.size for _, blob in model.blobs()))
    found = nonzero_where_masked(model, mask.masks)
    bad = {f"{name}/{index}": count for (name, index), count in found.items() if count}
    if bad:
        listed = ", ".join(f"{count} in {place}" for place, count in bad.items())
        raise SurgeryError(
            f"{path}: pruned weights are not zero: {listed}; they were trained without "
            f"--mask {mask_path}"
        )
    echo(f"{path}: all weights that {mask_path} prunes are exactly zero", err=True)
