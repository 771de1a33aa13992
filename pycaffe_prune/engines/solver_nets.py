"""Which nets a solver trains and tests, in which states: joined into one net that says so itself.

A solver can name its net in ten fields, and choose among layers by the states in it and in the net
(`Solver::InitTrainNet` and `Solver::InitTestNets` of `src/caffe/solver.cpp`). Whatever a run then
looks at, an engine or what is said of its data, reads the one net that comes from here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pycaffe_prune.engines.job import TrainRequest
from pycaffe_prune.errors import FormatError
from pycaffe_prune.formats.caffe_pb2 import (
    TEST,
    TRAIN,
    LayerParameter,
    NetParameter,
    NetStateRule,
    Phase,
    SolverParameter,
)
from pycaffe_prune.formats.caffe_pb2 import NetState as NetStateMessage
from pycaffe_prune.formats.prototxt import read_net, read_solver
from pycaffe_prune.net.graph import NetState, layers_in_state, with_state
from pycaffe_prune.net.state_wish import require_named
from pycaffe_prune.net.trust import refuse_untrusted, refuse_untrusted_nets

__all__ = ["SolverNets", "net_of_solver", "solver_nets", "test_states", "with_nets"]

_TRAINING = ("train_net_param", "train_net", "net_param", "net")
_NAMING = (*_TRAINING, "test_net", "test_net_param", "train_state", "test_state")
_STAGE = "test net {}"


def net_of_solver(path: Path) -> Path:
    """Return the path of the one net that a solver names by ``net``.

    Caffe looks in the working directory only. The solver's folder and its parents are tried after
    it, so that a solver finds its net wherever the command is typed.

    Raises:
        FormatError: The solver cannot be read, names no such net, or there is no such file.
    """
    solver = read_solver(path)
    if not solver.HasField("net"):
        raise FormatError(
            f"{path}: names no net for training and tests alike; give it "
            "'net: \"…train_val.prototxt\"' or use --net"
        )
    return _beside(solver.net, path)


def _beside(name: str, solver_path: Path) -> Path:
    for folder in (Path(), *solver_path.resolve().parents):
        if (folder / name).is_file():
            return (folder / name).resolve()
    raise FormatError(f"{solver_path}: names the net '{name}', which is neither here nor beside it")


@dataclass(frozen=True)
class SolverNets:
    """What a solver trains and tests."""

    net: NetParameter
    """The training net in the phase TRAIN; the test nets in the phase TEST, where there are several
    each in a stage of its own."""
    source: Path
    """Where the training net was read from, to begin sentences with."""
    tests: tuple[str, ...]
    """The test nets, each with a name: its number, and what chose it. Empty for an only one."""


def solver_nets(request: TrainRequest, solver: SolverParameter) -> SolverNets:
    """Resolve the nets of a request's solver.

    A net without states comes back as it is in its file. Otherwise the layers of each net and state
    stand one after the other, with rules of ours that say which they belong to.

    Args:
        request: Says where the solver was read from; its ``net`` takes the place of all nets that
            the solver names, its ``state`` is added to the state of each.
        solver: The solver, with all overrides in it.

    Raises:
        FormatError: A net is missing or damaged, the solver names none or several for training, or
            as many test nets, ``test_iter`` and ``test_state`` as do not go together, a state
            makes of training a test, or a net is not to be trusted (`net.trust`).
    """
    if not request.trust:
        refuse_untrusted_nets(solver, request.solver)
    told = SolverParameter()
    told.CopyFrom(solver)
    if request.net is not None:
        for name in (*_TRAINING, "test_net", "test_net_param"):
            told.ClearField(name)
        told.net = str(request.net)
    named = [name for name in _TRAINING if told.HasField(name)]
    if not named:
        raise FormatError(
            f"{request.solver}: names no net to train; give it 'net: \"…train_val.prototxt\"', or "
            "train_net, or use --net"
        )
    if len(named) > 1:
        raise FormatError(
            f"{request.solver}: names nets to train by {' and '.join(named)}; Caffe takes one"
        )
    train = _training(told, named[0], request)
    tests = list(_tests(told, named[0], train, request))
    require_named([one.net for one in (train, *tests)], request.state, request.solver)
    plain = not any(
        [train.net.HasField("state"), told.HasField("train_state"), told.test_state, request.state]
    )
    if plain and len(tests) <= 1 and all(test.net is train.net for test in tests):
        return SolverNets(train.net, train.source, ("",) * len(tests))
    return SolverNets(_joined(train, tests), train.source, _names(told, tests))


def test_states(solver: SolverParameter) -> list[NetState]:
    """Return the state of each test net of a solver from `with_nets`, in Caffe's order."""
    if solver.test_state:
        return [NetState(TEST, 0, tuple(state.stage)) for state in solver.test_state]
    return [NetState(TEST) for _ in solver.test_iter]


def with_nets(solver: SolverParameter, nets: SolverNets, path: Path) -> SolverParameter:
    """Return ``solver`` with the joined net, written to ``path``, as its only one."""
    new = SolverParameter()
    new.CopyFrom(solver)
    for name in _NAMING:
        new.ClearField(name)
    new.net = str(path.resolve())
    if len(nets.tests) > 1:
        for number in range(len(nets.tests)):
            new.test_state.add().stage.append(_STAGE.format(number))
    return new


class _Named(NamedTuple):
    """One net that a solver names, and the state that it is used in."""

    net: NetParameter
    source: Path
    state: NetState


def _training(solver: SolverParameter, field: str, request: TrainRequest) -> _Named:
    net, source = _net_in(getattr(solver, field), field, request)
    state = _merged(TRAIN, source, net.state, ("train_state", solver.train_state))
    return _Named(net, source, state)


def _tests(
    solver: SolverParameter, field: str, train: _Named, request: TrainRequest
) -> Iterator[_Named]:
    """The test nets in Caffe's order, each with its own test_state."""
    apart: list[tuple[str, str | NetParameter]] = [
        *(("test_net_param", net) for net in solver.test_net_param),
        *(("test_net", name) for name in solver.test_net),
    ]
    is_generic = field in ("net", "net_param")
    count = len(solver.test_iter)
    if count and not (apart or is_generic):
        raise FormatError(
            f"{request.solver}: names its net by {field} alone, which is trained and never tested; "
            "name a test_net, or net in place of it, or ask for no test (test_iter, "
            "--test-interval)"
        )
    if count < len(apart) or (count > len(apart) and not is_generic):
        raise FormatError(
            f"{request.solver}: has {len(apart)} test nets and {count} test_iter; give one "
            "test_iter for each"
            + ("" if is_generic else ", and name a test_net for each, or net in place of train_net")
        )
    states = list(solver.test_state) or [NetStateMessage()] * count
    if len(states) != count:
        raise FormatError(
            f"{request.solver}: has {len(states)} test_state for {count} test nets; give none, or "
            "one for each test_iter"
        )
    for number, state in enumerate(states):
        net, source = train.net, train.source
        if number < len(apart):
            net, source = _net_in(apart[number][1], apart[number][0], request)
        yield _Named(net, source, _merged(TEST, source, net.state, ("test_state", state)))


def _net_in(
    value: str | NetParameter, field: str, request: TrainRequest
) -> tuple[NetParameter, Path]:
    """The net of a field, with the wished state in it, and the file that it stands in."""
    if isinstance(value, str):
        source = request.net if request.net is not None else _beside(value, request.solver)
        net = read_net(source)
    else:
        source, net = request.solver, value
        _refuse_old_forms(net, field, source)
        if not net.layer:
            raise FormatError(f"{source}: its {field} holds no layer")
    if not request.trust:
        refuse_untrusted(net, source)
    if request.state:
        net = with_state(net, request.state.level, request.state.stages)
    return net, source


def _refuse_old_forms(net: NetParameter, field: str, source: Path) -> None:
    """Refuse what Caffe brings to today's form in a net's own file alone, and passes over here."""
    for name in ("layers", "input"):
        if getattr(net, name):
            raise FormatError(
                f"{source}: its {field} has {name}, an old form that Caffe reads in a net's own "
                f"file alone; write the net into a file and name it by {field[: -len('_param')]}"
            )


def _merged(
    phase: Phase, source: Path, own: NetStateMessage, solvers: tuple[str, NetStateMessage]
) -> NetState:
    """A net's state as Caffe merges it: the phase, the net's own state, and the solver's."""
    merged = NetStateMessage(phase=phase)
    for where, state in (("state", own), solvers):
        if state.HasField("phase") and state.phase != phase:
            raise FormatError(
                f"{source}: {where} asks for the phase {Phase.Name(state.phase)} in a net of the "
                f"phase {Phase.Name(phase)}, which Caffe follows and no engine here does; take "
                "the phase out of it"
            )
        merged.MergeFrom(state)
    return NetState(phase, merged.level, tuple(merged.stage))


def _names(solver: SolverParameter, tests: Sequence[_Named]) -> tuple[str, ...]:
    if len(tests) < 2:
        return ("",) * len(tests)
    inside = len(solver.test_net_param)
    names = []
    for number, test in enumerate(tests):
        told = [test.source.name] if inside <= number < inside + len(solver.test_net) else []
        if solver.test_state:
            told += solver.test_state[number].stage
        names.append(f"test net #{number}" + (f" ({', '.join(told)})" if told else ""))
    return tuple(names)


def _joined(train: _Named, tests: Sequence[_Named]) -> NetParameter:
    net = NetParameter()
    net.CopyFrom(train.net)
    for field in ("layer", "state"):
        net.ClearField(field)
    net.layer.extend(_ruled(train, NetStateRule(phase=TRAIN)))
    for number, test in enumerate(tests):
        rule = NetStateRule(phase=TEST)
        if len(tests) > 1:
            rule.stage.append(_STAGE.format(number))
        net.layer.extend(_ruled(test, rule))
    return net


def _ruled(named: _Named, rule: NetStateRule) -> Iterator[LayerParameter]:
    """The layers of a net in its state, in by this rule alone."""
    layers = layers_in_state(named.net, named.state)
    if not layers:
        raise FormatError(
            f"{named.source}: has no layer in the phase {Phase.Name(named.state.phase)}, level "
            f"{named.state.level}, stages {', '.join(named.state.stages) or 'none'}"
        )
    for layer in layers:
        ruled = LayerParameter()
        ruled.CopyFrom(layer)
        ruled.ClearField("include")
        ruled.ClearField("exclude")
        ruled.include.append(rule)
        yield ruled
