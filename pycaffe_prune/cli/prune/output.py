"""What the prune commands share: the files they read and write, the table they print."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from types import MappingProxyType

from rich.table import Table

from pycaffe_prune.cli.inspect.unknown_fields import warn_of_unknown_fields
from pycaffe_prune.cli.tables import table_console
from pycaffe_prune.convert.definitions import with_definitions
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel, write_caffemodel
from pycaffe_prune.formats.prototxt import read_net, write_prototxt
from pycaffe_prune.formats.weights import read_weights
from pycaffe_prune.net.fit import refuse_repeated_names, require_fitting
from pycaffe_prune.net.state_wish import StateWish, in_wished_state, with_state_of
from pycaffe_prune.pruning.counts import LayerReduction, overall
from pycaffe_prune.screen import echo

__all__ = [
    "naming_inputs",
    "of_all_states",
    "read_model",
    "show_left_out",
    "show_reductions",
    "write_model",
]


_NO_UNITS: Mapping[str, str] = MappingProxyType({})


def naming_inputs(command: Callable[..., None]) -> Callable[..., None]:
    """Put the names of both inputs before a `SurgeryError`, which knows layers but no files."""

    @wraps(command)
    def named(net: Path, weights: Path, **options: object) -> None:
        try:
            command(net=net, weights=weights, **options)
        except SurgeryError as error:
            raise SurgeryError(f"{weights} with {net}: {error}") from error

    return named


def read_model(net: Path, weights: Path, state: StateWish) -> tuple[NetParameter, Caffemodel]:
    """Read a net and its weights, in any form; weights that come as names alone get definitions.

    Raises:
        FormatError: A file is missing, damaged, or of no known form, or ``state`` means nothing to
            the net.
        SurgeryError: They do not belong together, or two layers with weights have one name.
    """
    original, model = read_net(net), read_weights(weights)
    warn_of_unknown_fields(net)
    refuse_repeated_names(original)
    definition = in_wished_state(original, state, net)
    require_fitting(definition, model)
    if not any(layer.type for layer in model.layers):
        defined = with_definitions(model, definition)
        model = replace(defined, net=with_state_of(defined.net, original))
    return definition, model


def of_all_states(path: Path, wished: NetParameter, model: Caffemodel) -> NetParameter:
    """The net without the wish if its weights fit so too: one file holds the layers of all states.

    What leads out of a unit is deleted in every state; a wish must not hide some of them.
    """
    original = read_net(path)
    try:
        require_fitting(original, model)
    except SurgeryError:  # these weights are of the wished state alone
        return wished
    return original


def show_reductions(rows: Sequence[LayerReduction], units: Mapping[str, str] = _NO_UNITS) -> None:
    """Print the reduction of each layer and of all together, as the paper counts it.

    Args:
        rows: The weights of each layer, before and after.
        units: What is left of the units of layers that lost some; without any, no such column.
    """
    table = Table()
    table.add_column("layer")
    if units:
        table.add_column("units", justify="right")
    for column in ("weights", "kept", "reduction %"):
        table.add_column(column, justify="right")
    for row in rows:
        left = [units.get(row.layer, "")] if units else []
        counts = (f"{row.weights:,}", f"{row.kept:,}", f"{100 * row.reduction:.2f}")
        table.add_row(row.layer, *left, *counts)
    table.add_section()
    weights, kept = sum(row.weights for row in rows), sum(row.kept for row in rows)
    blank = [""] if units else []
    table.add_row("all", *blank, f"{weights:,}", f"{kept:,}", f"{100 * overall(rows):.2f}")
    table_console().print(table)


def show_left_out(left_out: Sequence[tuple[str, str]], net: NetParameter) -> None:
    """Print the layers that ``--layers all`` leaves out, by the reason, and their types.

    Args:
        left_out: Names with the end of a sentence that begins with the layer.
        net: The net of these layers.
    """
    types = {layer.name: layer.type for layer in net.layer}
    alike: dict[tuple[str, str], list[str]] = {}
    for name, reason in left_out:
        alike.setdefault((types[name], reason), []).append(name)
    for (kind, reason), names in alike.items():
        echo(f"left out: {', '.join(names)} ({kind}): {reason}")


def write_model(out: Path, source: Path, net: NetParameter, model: Caffemodel) -> None:
    """Write ``net.prototxt`` and ``pruned.caffemodel`` into ``out``, each whole or not at all.

    Args:
        out: The folder.
        source: The prototxt that ``net`` is from: its own state is written, not a wished one.
        net: All layers of the net, whatever their state.
        model: Its weights.
    """
    write_prototxt(out / "net.prototxt", with_state_of(net, read_net(source)))
    write_caffemodel(out / "pruned.caffemodel", model)
