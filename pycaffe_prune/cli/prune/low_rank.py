"""``caffe-prune prune low-rank``: two smaller layers for one, by singular value decomposition."""

from collections.abc import Mapping
from pathlib import Path

import click
from rich.table import Table

from pycaffe_prune.cli.input_shapes import input_shapes_option
from pycaffe_prune.cli.options import state_options
from pycaffe_prune.cli.prune.layer_values import layer_values
from pycaffe_prune.cli.prune.options import model_options
from pycaffe_prune.cli.prune.output import (
    naming_inputs,
    of_all_states,
    read_model,
    show_left_out,
    write_model,
)
from pycaffe_prune.cli.tables import table_console
from pycaffe_prune.errors import SurgeryError
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.net.shapes import Shape
from pycaffe_prune.net.state_wish import StateWish, of_chosen_state
from pycaffe_prune.pruning.factoring import (
    Factoring,
    can_be_factored,
    decompose_layers,
    factor_layers,
    left_out_of_factoring,
    ways_of,
)
from pycaffe_prune.pruning.low_rank import Decomposition, Way
from pycaffe_prune.pruning.ranks import (
    Cost,
    mac_costs,
    paying_ranks,
    ranks_of_energy,
    ranks_within,
    weight_costs,
)
from pycaffe_prune.pruning.selection import chooses_all, select_layers
from pycaffe_prune.screen import echo

__all__ = ["low_rank"]


@click.command("low-rank")
@model_options("Weights to factor, in any form.", "Folder for the factored model.")
@click.option(
    "--energy",
    "energies",
    multiple=True,
    metavar="E | LAYER=E",
    help="Keep this share of the squared singular values, 0 to 1: of all --layers, or of one "
    "(that one wins).",
)
@click.option(
    "--rank",
    "ranks",
    multiple=True,
    metavar="R | LAYER=R",
    help="Instead: the rank itself; of a Convolution with groups, that of each group.",
)
@click.option(
    "--parameters",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Instead: what the weights of all --layers may be together, a number or below 1 a share; "
    "the ranks that keep the most for it.",
)
@click.option(
    "--macs",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Instead: the same for multiply-accumulates.",
)
@click.option(
    "--layers",
    default="InnerProduct",
    show_default=True,
    help="Which layers: names, patterns (conv*), types, or all; with commas.",
)
@click.option(
    "--convolutions",
    type=click.Choice([Way.SPATIAL.value, Way.FILTERS.value]),
    default=Way.SPATIAL.value,
    show_default=True,
    help="Convolutions become kernel_h x 1 and 1 x kernel_w, or rank filters and a 1 x 1.",
)
@click.option("--dry-run", is_flag=True, help="Show the ranks and write nothing.")
@input_shapes_option
@state_options
@naming_inputs
def low_rank(
    net: Path,
    weights: Path,
    energies: tuple[str, ...],
    ranks: tuple[str, ...],
    parameters: float | None,
    macs: float | None,
    out: Path,
    layers: str,
    convolutions: str,
    dry_run: bool,
    inputs: Mapping[str, Shape],
    state: StateWish,
) -> None:
    """Put two layers of a low rank in the place of one; write net.prototxt and pruned.caffemodel.

    W becomes U·V by its largest singular values: the layer ip1 becomes ip1_v, which reads what ip1
    read and has no bias, and ip1, which makes the same units out of the rank's. Both are stock
    Caffe layers, so that the model trains on as any other. Layers whose two would not be smaller
    stay whole, unless their --rank is given. --macs needs to know the images' size, which
    train_val nets do not tell: --input-shape.

    \b
    Examples:
      caffe-prune prune low-rank --net deploy.prototxt --weights lenet_300_100.caffemodel \\
          --energy 0.9 --out factored
      caffe-prune prune low-rank --net train_val.prototxt --weights final.caffemodel \\
          --parameters 0.25 --out quarter
      caffe-prune prune low-rank --net deploy.prototxt --weights caffenet.caffemodel \\
          --layers 'conv*' --macs 0.5 --dry-run --out half
      caffe-prune prune low-rank --net train_val.prototxt --weights final.caffemodel \\
          --layers all --convolutions filters --rank conv1=5 --rank ip1=40 --out factored
      caffe-prune train --solver solver.prototxt --net factored/net.prototxt \\
          --weights factored/pruned.caffemodel --data data/mnist --out retrained
    """
    if [bool(energies), bool(ranks), parameters is not None, macs is not None].count(True) != 1:
        raise click.UsageError("give one of --energy, --rank, --parameters and --macs")
    definition, model = read_model(net, weights, state)
    whole = of_all_states(net, definition, model)
    candidates = of_chosen_state(can_be_factored(whole, model), definition, state)
    left_out = left_out_of_factoring(whole, model)
    values = layer_values(energies or ranks, candidates, layers, left_out)
    chosen = list(values) or select_layers(candidates, layers, left_out)
    ways = ways_of(whole, chosen, Way(convolutions))
    found = decompose_layers(whole, model, ways)
    taken, multiplied = weight_costs(found), _mac_costs(definition, ways, inputs)
    if ranks:
        wanted = _whole_numbers(values, found)
    elif energies:
        wanted = paying_ranks(ranks_of_energy(found, values), taken)
    else:
        counted = taken if parameters is not None else multiplied
        if isinstance(counted, SurgeryError):
            raise counted
        wanted = _within(found, counted, parameters or macs or 0)
    _show(found, wanted, taken, multiplied)
    if chooses_all(layers):
        show_left_out(of_chosen_state(list(left_out.items()), definition, state), whole)
    if dry_run:
        return
    made = {name: Factoring(ways[name], found[name].cut(rank)) for name, rank in wanted.items()}
    write_model(out, net, *factor_layers(whole, model, made))
    echo(f"written to {out}")


def _mac_costs(
    net: NetParameter, ways: Mapping[str, Way], inputs: Mapping[str, Shape]
) -> dict[str, Cost] | SurgeryError:
    """What is multiplied, or why that is not known, which matters only where it is asked for."""
    try:
        return mac_costs(net, ways, inputs)
    except SurgeryError as error:
        return error


def _whole_numbers(
    ranks: Mapping[str, float], found: Mapping[str, Decomposition]
) -> dict[str, int]:
    for name, rank in ranks.items():
        if rank not in range(1, found[name].full_rank + 1):
            raise SurgeryError(
                f"layer '{name}' has ranks from 1 to {found[name].full_rank}, not {rank:g}"
            )
    return {name: int(rank) for name, rank in ranks.items()}


def _within(
    found: Mapping[str, Decomposition], taken: Mapping[str, Cost], told: float
) -> dict[str, int]:
    total = sum(cost.whole for cost in taken.values())
    return ranks_within(found, taken, told * total if told < 1 else told)


def _show(
    found: Mapping[str, Decomposition],
    ranks: Mapping[str, int],
    taken: Mapping[str, Cost],
    multiplied: Mapping[str, Cost] | SurgeryError,
) -> None:
    macs = multiplied if isinstance(multiplied, dict) else {}
    table = Table()
    table.add_column("layer")
    for column in ("rank", "weights", "left", "MACs", "left", "energy %"):
        table.add_column(column, justify="right")
    for name, one in found.items():
        rank = ranks.get(name)
        energy = 1.0 if rank is None else one.energy(rank)
        table.add_row(
            name,
            f"whole ({one.full_rank})" if rank is None else f"{rank} of {one.full_rank}",
            *_told([taken[name]], [rank]),
            *(_told([macs[name]], [rank]) if macs else ("?", "?")),
            f"{100 * energy:.2f}",
        )
    table.add_section()
    order = [ranks.get(name) for name in found]
    of_all = _told([macs[name] for name in found], order) if macs else ("?", "?")
    table.add_row("all", "", *_told([taken[name] for name in found], order), *of_all, "")
    table_console().print(table)
    if isinstance(multiplied, SurgeryError):
        echo(f"MACs are not counted: {multiplied}")


def _told(costs: list[Cost], ranks: list[int | None]) -> tuple[str, str]:
    """What is taken before and after, in digits."""
    left = [
        cost.whole if rank is None else cost.of_rank * rank
        for cost, rank in zip(costs, ranks, strict=True)
    ]
    return f"{sum(cost.whole for cost in costs):,}", f"{sum(left):,}"
