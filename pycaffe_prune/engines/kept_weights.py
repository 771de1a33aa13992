"""What a request says of weights that stay zero or equal, held against the rest of its run."""

from collections.abc import Mapping, Sequence

from pycaffe_prune.engines.job import LoadedWeights, TrainRequest
from pycaffe_prune.engines.masking import require_fitting_masking
from pycaffe_prune.engines.tying import require_fitting_tying
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.axes import Shape
from pycaffe_prune.formats.caffe_pb2 import NetParameter, SolverParameter
from pycaffe_prune.formats.mask import MaskFile

__all__ = ["require_masking", "require_tying"]


def require_masking(
    request: TrainRequest,
    net: NetParameter,
    inputs: Mapping[str, Shape],
    solver: SolverParameter,
    mask: MaskFile | None,
) -> None:
    """Refuse a masking that does not fit the run.

    Args:
        request: Tells it.
        net: The net.
        inputs: The shapes of what the data layers of its TRAIN state bring.
        solver: As the engine runs it.
        mask: Masks that stay.

    Raises:
        FormatError: The run goes on from a state that tells nothing of masks.
        SurgeryError: It fits the net, the solver or the masks badly.
    """
    if request.masking is None:
        return
    if request.restore and request.masking.moves_masks:
        raise FormatError(
            f"{request.restore}: a run whose masks change cannot go on from another's state, "
            "which tells nothing of masks; begin with its --weights, and a --mask"
        )
    require_fitting_masking(
        request.masking,
        net,
        inputs,
        request.solver,
        solver.max_iter,
        mask.masks if mask else (),
    )


def require_tying(
    request: TrainRequest,
    net: NetParameter,
    inputs: Mapping[str, Shape],
    loaded: Sequence[LoadedWeights],
) -> None:
    """Refuse a tying that does not fit the run.

    Args:
        request: Tells it.
        net: The net.
        inputs: The shapes of what the data layers of its TRAIN state bring.
        loaded: The weights that the run begins with.

    Raises:
        FormatError: The run goes on from a state, or has a masking, too.
        SurgeryError: It fits the net or its weights badly.
    """
    if request.tying is None:
        return
    if request.restore:
        raise FormatError(
            f"{request.restore}: a run whose equal weights stay equal cannot go on from another's "
            "state, whose history moves them apart; begin with its --weights"
        )
    if request.masking:
        raise FormatError(
            f"{request.solver}: a masking and weights that are tied do not go together; train "
            "twice, with the weights that the first run leaves"
        )
    filled = {name for file in loaded for name in file.copied}
    require_fitting_tying(request.tying, net, inputs, filled)
