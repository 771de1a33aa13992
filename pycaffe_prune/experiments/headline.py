"""Which layer the tests of an experiment judge, known before anything is trained."""

from pathlib import Path
from typing import NamedTuple

from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.engines.solver_nets import solver_nets
from pycaffe_prune.engines.test_plan import headline_mark, plan_test
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN
from pycaffe_prune.formats.prototxt import read_solver, refuse_carried
from pycaffe_prune.net.graph import NetState, layers_in_state

__all__ = ["Headline", "require_headline"]


class Headline(NamedTuple):
    """The layer that is judged."""

    layer: str
    mark: str | None
    """See `engines.test_plan.headline_mark`."""


def require_headline(solver: Path, net: Path, wanted: str | None, *, trust: bool) -> Headline:
    """Return what is judged where a solver's test is of ``net``.

    Args:
        solver: Its ``test_state`` counts; one without ``test_iter`` is tested all the same.
        net: A prototxt.
        wanted: The layer's name; None: chosen by `engines.test_plan`.
        trust: Whether the files are the user's own (`net.trust`).

    Raises:
        FormatError: A file cannot be read or is not to be trusted, or the TEST net has no such
            layer, or none to judge by.
    """
    told = read_solver(solver)
    if not told.test_iter:
        told.test_iter.append(1)
    nets = solver_nets(TrainRequest(solver, net, trust=trust), told)
    refuse_carried(nets.net, net, "training")
    test = layers_in_state(nets.net, NetState.of(nets.net, TEST))
    plan = plan_test(test, wanted, layers_in_state(nets.net, NetState.of(nets.net, TRAIN)))
    if plan is None:
        raise FormatError(
            f"{net}: has no Accuracy or SoftmaxWithLoss layer with labels in its TEST phase to "
            "judge the experiment by"
        )
    return Headline(plan.layer, headline_mark(test, plan))
