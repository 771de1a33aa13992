"""Which units ``prune units`` deletes by a ranking: of weights, or of training images."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import click
from click.core import ParameterSource

from pycaffe_prune.cli.options import engine_to_work_with
from pycaffe_prune.cli.prune.options import Images
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.experiments.features.training_images import training_images
from pycaffe_prune.experiments.features.unit_states import entropy_scores
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.state_wish import in_wished_state
from pycaffe_prune.net.trust import refuse_untrusted
from pycaffe_prune.pruning.unit_choice import UnitScores, weight_scores
from pycaffe_prune.pruning.unit_steps import (
    ScoreUnits,
    lowest_in_steps,
    lowest_over_all_in_steps,
)
from pycaffe_prune.pruning.units import Kept, units_together

__all__ = ["ENTROPY", "GLOBAL", "LAYER", "Ranking", "ranked_units", "refuse_idle"]

ENTROPY = "entropy"
LAYER, GLOBAL = "layer", "global"
_MOST_IMAGES = 10_000


@dataclass(frozen=True)
class Ranking:
    """How units are ranked."""

    criterion: str
    seed: int
    scope: str
    steps: int


def refuse_idle(why: str, *names: str) -> None:
    """Refuse options that were given and would do nothing.

    Raises:
        click.UsageError: One of the parameters ``names`` was given; ``why`` ends the sentence.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") not in (
            ParameterSource.DEFAULT,
            None,
        )
        if parameter.name in names and given:
            raise click.UsageError(f"{parameter.opts[0]} {why}", context)


def ranked_units(
    net: NetParameter,
    model: Caffemodel,
    ratios: Mapping[str, float],
    ranking: Ranking,
    images: Images,
) -> Kept:
    """Return which units are kept.

    Args:
        net: The net, with the layers of all its states.
        model: Its weights.
        ratios: Per layer; with the scope `GLOBAL` one ratio for all.
        ranking: How.
        images: For the criterion `ENTROPY`.

    Raises:
        DataError: The images cannot be read.
        EngineError: The engine failed, or there is none.
        FormatError: The net does not tell its training images.
        SurgeryError: Units cannot be scored, or cannot go.
    """
    asked = [
        name for group in units_together(net, model) if ratios.keys() & set(group) for name in group
    ]
    with _scoring(net, asked, ranking, images) as score:
        if ranking.scope == LAYER:
            return lowest_in_steps(net, model, score, ratios, ranking.steps)
        (ratio,) = set(ratios.values())
        return lowest_over_all_in_steps(net, model, score, asked, ratio, ranking.steps)


@contextmanager
def _scoring(
    net: NetParameter, layers: list[str], ranking: Ranking, images: Images
) -> Iterator[ScoreUnits]:
    if ranking.criterion != ENTROPY:

        def by_weights(small: NetParameter, model: Caffemodel) -> UnitScores:
            return weight_scores(
                small, model, layers, criterion=ranking.criterion, seed=ranking.seed
            )

        yield by_weights
        return
    path, trust = images.net_path, images.wish.trust
    if not trust:
        refuse_untrusted(net, path)
    source = training_images(
        in_wished_state(net, images.state, path), path, images.data, trust=trust
    )
    count = images.count or min(source.count, _MOST_IMAGES)
    with engine_to_work_with(images.wish) as engine, stop_on_signal(engine.stop):

        def by_images(small: NetParameter, model: Caffemodel) -> UnitScores:
            wished = in_wished_state(small, images.state, path)
            return entropy_scores(
                wished, path, model, layers, source, range(count), engine, trust=trust
            )

        yield by_images
