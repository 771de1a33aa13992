"""``caffe-prune prune units``: delete units or filters, write a smaller net and its weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from pycaffe_prune.cli.options import state_options
from pycaffe_prune.cli.prune.layer_values import layer_values
from pycaffe_prune.cli.prune.options import (
    OF_IMAGES,
    Images,
    image_options,
    layers_option,
    model_options,
)
from pycaffe_prune.cli.prune.output import (
    naming_inputs,
    of_all_states,
    read_model,
    show_left_out,
    show_reductions,
    write_model,
)
from pycaffe_prune.cli.prune.unit_ranking import (
    ENTROPY,
    GLOBAL,
    LAYER,
    Ranking,
    ranked_units,
    refuse_idle,
)
from pycaffe_prune.cli.prune.unit_search import evolved_units
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.state_wish import StateWish, of_chosen_state
from pycaffe_prune.pruning.counts import deleted_reduction
from pycaffe_prune.pruning.criteria.units import UNIT_CRITERIA
from pycaffe_prune.pruning.genetic import GeneticSearch
from pycaffe_prune.pruning.merging import left_out_of_merging, merge_units
from pycaffe_prune.pruning.selection import chooses_all
from pycaffe_prune.pruning.sharing import one_of_each, shared_blobs
from pycaffe_prune.pruning.spreading import left_out_of_spreading, spread_units
from pycaffe_prune.pruning.units import (
    Kept,
    delete_units,
    keep_lrn_neighbours,
    left_out_of_units,
    lrn_layers_changed,
    mask_units,
    prunable_layers,
    units_together,
)
from pycaffe_prune.screen import echo

__all__ = ["units"]

_RANK, _MERGE, _SPREAD, _GENETIC = "rank", "merge", "spread", "genetic"
_CHANGING = {
    _MERGE: (left_out_of_merging, merge_units),
    _SPREAD: (left_out_of_spreading, spread_units),
}
"""Methods that change weights of units that stay."""


@click.command()
@model_options("Weights to prune, in any form.", "Folder for the smaller model.")
@click.option(
    "--ratio",
    "ratios",
    multiple=True,
    required=True,
    metavar="R | LAYER=R",
    help="Share of units to delete: of all --layers, or of one (that one wins).",
)
@click.option(
    "--criterion",
    type=click.Choice(sorted([*UNIT_CRITERIA, ENTROPY])),
    default="onorm",
    show_default=True,
    help="What the units are ranked by; entropy takes training images.",
)
@click.option(
    "--scope",
    type=click.Choice([LAYER, GLOBAL]),
    default=LAYER,
    show_default=True,
    help="Rank the units of each layer, or of all chosen layers together.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Delete in so many steps, and score what is left anew in each.",
)
@click.option(
    "--method",
    type=click.Choice([_RANK, _MERGE, _SPREAD, _GENETIC]),
    default=_RANK,
    show_default=True,
    help="Delete the lowest by --criterion, merge units that are much alike, "
    "spread those that go over all that stay, or search for the set "
    "with which the net is right on most training images.",
)
@layers_option("R")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Of --criterion random and --method genetic.",
)
@click.option(
    "--keep-lrn-neighbours",
    "exact_lrn",
    is_flag=True,
    help="Keep filters in the LRN window of kept ones: exact, but deletes little.",
)
@click.option(
    "--masked",
    is_flag=True,
    help="Write masked/ too: the model at full size, zeros in what leads out of deleted units.",
)
@click.option(
    "--population",
    type=click.IntRange(2),
    default=GeneticSearch.population,
    show_default=True,
    help="Of --method genetic: sets of units in a generation.",
)
@click.option(
    "--generations",
    type=click.IntRange(0),
    default=GeneticSearch.generations,
    show_default=True,
    help="Of --method genetic.",
)
@click.option("--dry-run", is_flag=True, help="Show the reductions and write nothing.")
@state_options
@image_options(
    "Training images: of --criterion entropy the first N, of --method genetic the last N.  "
    "[default: 10000 and 5000, or all if there are fewer]"
)
@naming_inputs
def units(
    net: Path,
    weights: Path,
    ratios: tuple[str, ...],
    out: Path,
    criterion: str,
    method: str,
    layers: str,
    seed: int,
    exact_lrn: bool,
    masked: bool,
    scope: str,
    steps: int,
    images: Images,
    population: int,
    generations: int,
    dry_run: bool,
    state: StateWish,
) -> None:
    """Delete the units with the lowest score; write a smaller net.prototxt and pruned.caffemodel.

    Units are those of InnerProduct, Embed, LSTM and RNN layers and the filters of Convolutions and
    Deconvolutions. Layers whose outputs are added up lose theirs together; a Convolution with
    groups loses equally many in each. Output layers are never pruned. With --method merge a unit
    that goes gives its outgoing weights to the one most like it, which often makes training after
    it needless.

    \b
    Examples:
      caffe-prune prune units --net train_val.prototxt --weights final.caffemodel \\
          --ratio 0.5 --out half
      caffe-prune prune units --net train_val.prototxt --weights final.caffemodel \\
          --ratio ip1=0.9 --ratio ip2=0.5 --out smaller
      caffe-prune prune units --net deploy.prototxt --weights squeezenet.caffemodel \\
          --ratio 0.3 --layers all --criterion l1 --masked --out thin
      caffe-prune verify thin/masked thin
      caffe-prune prune units --net deploy.prototxt --weights lenet_300_100.caffemodel \\
          --ratio 0.5 --method merge --out merged
      caffe-prune prune units --net train_val.prototxt --weights final.caffemodel \\
          --ratio 0.5 --criterion entropy --data data/mnist --out by_entropy
      caffe-prune prune units --net train_val.prototxt --weights final.caffemodel \\
          --ratio 0.5 --criterion inorm --scope global --steps 5 --out in_steps
      caffe-prune prune units --net train_val.prototxt --weights final.caffemodel \\
          --ratio 0.8 --method genetic --data data/mnist --out evolved
    """
    _refuse_idle(method, criterion, scope, ratios)
    definition, model = read_model(net, weights, state)
    whole = of_all_states(net, definition, model)
    candidates = of_chosen_state(_with_units(whole, model), definition, state)
    left_out = _CHANGING.get(method, (left_out_of_units,))[0](whole, model)
    wanted = _ratios(ratios, whole, model, layers, candidates, left_out)
    source = model
    chosen: Kept
    if method == _RANK:
        ranking = Ranking(criterion, seed, scope, steps)
        chosen = ranked_units(whole, model, wanted, ranking, images)
    elif method == _GENETIC:
        search = GeneticSearch(population, generations)
        chosen = evolved_units(whole, model, wanted, scope, search, seed, images)
    else:
        source, chosen = _CHANGING[method][1](whole, model, wanted)
    kept = chosen
    if exact_lrn:
        kept = keep_lrn_neighbours(whole, model, chosen)
        source = mask_units(whole, model, chosen)
    small_net, small = delete_units(whole, source, kept)
    _show(whole, model, small, kept)
    if chooses_all(layers):
        show_left_out(of_chosen_state(list(left_out.items()), definition, state), whole)
    if not exact_lrn:
        _warn_of_lrn(lrn_layers_changed(whole, model, kept))
    if dry_run:
        return
    write_model(out, net, small_net, small)
    echo(f"written to {out}")
    if masked:
        write_model(out / "masked", net, whole, mask_units(whole, model, chosen))
        echo(f"written to {out / 'masked'}")


def _refuse_idle(method: str, criterion: str, scope: str, ratios: Sequence[str]) -> None:
    """Refuse options that what is asked for would not follow."""
    if method in _CHANGING:
        refuse_idle("goes with --method rank or genetic", "scope", "masked", "exact_lrn")
    if method != _RANK:
        refuse_idle("goes with --method rank", "criterion", "steps")
    if method != _GENETIC:
        refuse_idle("goes with --method genetic", "population", "generations")
    by_images = method == _GENETIC or (method == _RANK and criterion == ENTROPY)
    if not by_images:
        refuse_idle("goes with --criterion entropy and --method genetic", *OF_IMAGES)
    if method != _GENETIC and criterion != "random":
        refuse_idle("goes with --criterion random and --method genetic", "seed")
    if scope == GLOBAL and (len(ratios) > 1 or "=" in ratios[0]):
        raise click.UsageError("--scope global takes one --ratio, for all --layers together")


def _warn_of_lrn(changed: Sequence[str]) -> None:
    if changed:
        echo(
            f"warning: {', '.join(changed)} (LRN) add up neighbouring channels, so the smaller net "
            "only comes near the masked one; retrain it, see how far off it is with "
            "`caffe-prune verify`, or use --keep-lrn-neighbours",
            err=True,
        )


def _with_units(net: NetParameter, model: Caffemodel) -> list[tuple[str, str]]:
    """Name and type of all layers with units."""
    types = {layer.name: layer.type for layer in net.layer}
    return [(name, types[name]) for group in units_together(net, model) for name in group]


def _ratios(
    texts: Sequence[str],
    net: NetParameter,
    model: Caffemodel,
    layers: str,
    candidates: Sequence[tuple[str, str]],
    left_out: Mapping[str, str],
) -> dict[str, float]:
    """What is asked of each candidate; LAYER=R speaks for the layers coupled with it too."""
    free = set(prunable_layers(net, model)).difference(left_out)
    prunable = [(name, kind) for name, kind in candidates if name in free]
    named = layer_values([text for text in texts if "=" in text], candidates, None)
    unnamed = [text for text in texts if "=" not in text]
    plain = layer_values(unnamed, prunable, layers, left_out)
    together = units_together(net, model)
    spoken_for = {name for group in together if named.keys() & set(group) for name in group}
    return {name: share for name, share in plain.items() if name not in spoken_for} | named


def _show(net: NetParameter, model: Caffemodel, small: Caffemodel, kept: Kept) -> None:
    # The paper counts fully connected layers only; other types show when they lose units. Types
    # are the net's: a caffemodel may call them otherwise.
    shown = {"InnerProduct", *(layer.type for layer in net.layer if layer.name in kept)}
    held = {layer.name for layer in model.layers if layer.blobs}
    names = [layer.name for layer in net.layer if layer.type in shown and layer.name in held]
    counted = one_of_each(shared_blobs(net), dict.fromkeys(names))
    left = {name: f"{int(keep.sum())} of {keep.size}" for name, keep in kept.items()}
    show_reductions(deleted_reduction(model, small, counted), left)
