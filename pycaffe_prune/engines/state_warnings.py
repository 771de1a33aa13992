"""Said when a run goes on from a snapshot: layers whose hidden states are not in it."""

from collections.abc import Iterable, Iterator

from pycaffe_prune.engines.base import Event
from pycaffe_prune.engines.run_folder import RunFolder
from pycaffe_prune.formats.caffe_pb2 import TRAIN, NetParameter
from pycaffe_prune.formats.prototxt import read_net
from pycaffe_prune.net.graph import NetState, layers_in_state

__all__ = ["with_state_warnings"]


def with_state_warnings(events: Iterable[Event], folder: RunFolder) -> Iterator[Event]:
    """Yield the events, and after each start from a snapshot a warning if the net remembers.

    A solverstate has no hidden states (`src/caffe/solvers/sgd_solver.cpp`): where a sequence goes
    on over the end of a batch, a run that goes on is not quite the one that was never stopped.
    """
    for event in events:
        yield event
        if event.event in ("restored", "resumed"):
            yield from _warning(read_net(folder.net))


def _warning(net: NetParameter) -> Iterator[Event]:
    names = [
        f"'{layer.name}'"
        for layer in layers_in_state(net, NetState.of(net, TRAIN))
        if layer.type in ("LSTM", "RNN") and not layer.recurrent_param.expose_hidden
    ]
    if names:
        kind = "layer" if len(names) == 1 else "layers"
        yield Event(
            event="warning",
            message=f"the hidden states of {kind} {', '.join(names)} are not in Caffe's snapshots: "
            "they begin with zeros, so this is the run that was never stopped only where no "
            "sequence goes on there",
        )
