"""What of a net and a solver decides a run's outcome, as a checksum: equal ones, the same run."""

import hashlib
from collections.abc import Iterable

from pycaffe_prune.engines.net_files import NetFile, with_contents
from pycaffe_prune.formats.caffe_pb2 import NetParameter, SolverParameter
from pycaffe_prune.formats.carried import to_text

__all__ = ["deciding_settings", "net_fingerprint", "solver_fingerprint"]

_WITHOUT = ["net", "max_iter", "random_seed", "test_iter", "test_state", "display", "solver_mode"]


def net_fingerprint(net: NetParameter, files: Iterable[NetFile]) -> str:
    """Return the checksum of a net and of what is in the files that it reads.

    Their paths do not count: a moved folder holds the same data.

    Args:
        net: The net.
        files: Its files (`engines.net_files.net_files`).
    """
    return _sha256(with_contents(net, files))


def solver_fingerprint(solver: SolverParameter) -> str:
    """Return the checksum of what `deciding_settings` leaves of a solver."""
    return _sha256(deciding_settings(solver))


def deciding_settings(solver: SolverParameter) -> SolverParameter:
    """Return a solver without its paths, its length and what it only shows."""
    deciding = SolverParameter()
    deciding.CopyFrom(solver)
    for name in _WITHOUT:
        deciding.ClearField(name)
    return deciding


def _sha256(message: NetParameter | SolverParameter) -> str:
    return hashlib.sha256(to_text(message).encode()).hexdigest()
