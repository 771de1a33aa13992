"""Which units ``prune units --method genetic`` deletes."""

from collections.abc import Mapping

from pycaffe_prune.cli.options import engine_to_work_with
from pycaffe_prune.cli.prune.options import Images
from pycaffe_prune.cli.prune.unit_ranking import LAYER
from pycaffe_prune.engines.interrupt import stop_on_signal
from pycaffe_prune.errors import DataError
from pycaffe_prune.experiments.features.genetic_units import genetic_units
from pycaffe_prune.experiments.features.training_images import training_images
from pycaffe_prune.formats.caffe_pb2 import NetParameter
from pycaffe_prune.formats.caffemodel import Caffemodel
from pycaffe_prune.net.state_wish import in_wished_state
from pycaffe_prune.net.trust import refuse_untrusted
from pycaffe_prune.pruning.genetic import GeneticSearch
from pycaffe_prune.pruning.units import Kept
from pycaffe_prune.screen import echo

__all__ = ["evolved_units"]

_HELD_OUT = 5000


def evolved_units(
    net: NetParameter,
    model: Caffemodel,
    ratios: Mapping[str, float],
    scope: str,
    search: GeneticSearch,
    seed: int,
    images: Images,
) -> Kept:
    """Return which units are kept, and say how good that is.

    Args:
        net: The net, with the layers of all its states.
        model: Its weights.
        ratios: Per layer; without the scope `LAYER` one ratio for all.
        scope: Whether each layer loses its share.
        search: How long and how widely is searched.
        seed: Of the search.
        images: Sets of units are judged by the last of these.

    Raises:
        DataError: The images cannot be read, or there are fewer.
        EngineError: The engine failed, or there is none.
        FormatError: The net does not tell its training images.
        SurgeryError: The layers are not of the fully connected end of the net, or cannot lose so
            many units.
    """
    path, trust = images.net_path, images.wish.trust
    wished = in_wished_state(net, images.state, path)
    if not trust:
        refuse_untrusted(wished, path)
    source = training_images(wished, path, images.data, trust=trust)
    count = images.count or min(source.count, _HELD_OUT)
    if count > source.count:
        raise DataError(f"{source.database}: holds {source.count} images, not {count}")
    shares = dict(ratios) if scope == LAYER else next(iter(ratios.values()))
    with engine_to_work_with(images.wish) as engine, stop_on_signal(engine.stop):
        found = genetic_units(
            wished,
            path,
            model,
            list(ratios),
            shares,
            source,
            range(source.count - count, source.count),
            engine,
            search=search,
            seed=seed,
            trust=trust,
        )
    history = found.evolved.history
    echo(
        f"accuracy on the last {found.images:,} training images: {100 * history[0]:.2f} % by the "
        f"best set to begin with, {100 * history[-1]:.2f} % after {len(history) - 1} generations "
        f"({found.evolved.judged:,} sets judged)"
    )
    return found.kept
