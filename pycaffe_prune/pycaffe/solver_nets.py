"""Which nets a solver has (`Solver::InitTrainNet` and `InitTestNets` of `src/caffe/solver.cpp`)."""

from collections.abc import Iterator
from pathlib import Path

from pycaffe_prune.formats.caffe_pb2 import TEST, TRAIN, NetParameter, Phase, SolverParameter
from pycaffe_prune.formats.caffe_pb2 import NetState as NetStateMessage
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.graph import NetState
from pycaffe_prune.pycaffe.errors import CheckError

__all__ = ["test_nets_of", "train_net_of"]

_TRAINING = ("net", "net_param", "train_net", "train_net_param")

StatedNet = tuple[NetParameter, NetState]


def train_net_of(solver: SolverParameter) -> StatedNet:
    """Return the net that a solver trains, and its state.

    Files are looked for from the working folder.

    Raises:
        CheckError: The solver names none, or several.
        FormatError: The file is missing or damaged.
    """
    named = [name for name in _TRAINING if solver.HasField(name)]
    if not named:
        raise CheckError(
            f"the solver must specify a train net using one of these fields: {', '.join(_TRAINING)}"
        )
    if len(named) > 1:
        raise CheckError(f"the solver specifies its train net by {' and '.join(named)}; one is due")
    net = _net(getattr(solver, named[0]), named[0])
    return net, _state(TRAIN, net.state, solver.train_state)


def test_nets_of(solver: SolverParameter) -> list[StatedNet]:
    """Return the nets that a solver tests, and their states, in Caffe's order.

    Files are looked for from the working folder.

    Raises:
        CheckError: ``test_iter`` or ``test_state`` are not one for each net, or tests have no
            ``test_interval``.
        FormatError: A file is missing or damaged.
    """
    apart: list[tuple[str, str | NetParameter]] = [
        *(("test_net_param", net) for net in solver.test_net_param),
        *(("test_net", name) for name in solver.test_net),
    ]
    generic = [name for name in ("net_param", "net") if solver.HasField(name)]
    count = len(solver.test_iter)
    if count < len(apart) or (count > len(apart) and not generic):
        raise CheckError(
            f"test_iter must be specified for each test network: the solver has {count}, and "
            f"{len(apart)} test nets"
        )
    if solver.test_state and len(solver.test_state) != count:
        raise CheckError(
            "test_state must be unspecified or specified once per test net: the solver has "
            f"{len(solver.test_state)}, and {count} test nets"
        )
    if count and solver.test_interval <= 0:
        raise CheckError(f"test_interval is {solver.test_interval}; tests need 1 or more")
    named = [*apart, *((name, getattr(solver, name)) for name in generic)]
    return list(_tests(solver, named))


def _tests(
    solver: SolverParameter, named: list[tuple[str, str | NetParameter]]
) -> Iterator[StatedNet]:
    for number in range(len(solver.test_iter)):
        field, value = named[min(number, len(named) - 1)]
        net = _net(value, field)
        own = solver.test_state[number] if solver.test_state else NetStateMessage()
        yield net, _state(TEST, net.state, own)


def _net(value: str | NetParameter, field: str) -> NetParameter:
    if isinstance(value, str):
        return read_net(Path(value))
    for name in ("layers", "input"):
        if getattr(value, name):
            raise CheckError(
                f"the solver's {field} has {name}, an old form that Caffe reads in a net's own "
                f"file alone; write the net into a file and name it by {field[: -len('_param')]}"
            )
    return value


def _state(phase: Phase, net: NetStateMessage, solver: NetStateMessage) -> NetState:
    """The default, then what the net says, then what the solver says."""
    merged = NetStateMessage(phase=phase)
    merged.MergeFrom(net)
    merged.MergeFrom(solver)
    return NetState(merged.phase, merged.level, tuple(merged.stage))
